//! Pure: which node of a cluster has which slot, read from `CLUSTER NODES`.

use std::collections::BTreeSet;

use crate::url::Address;

/// Which primary has which slots, as some nodes say.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    claims: Vec<Claim>,
    nodes: BTreeSet<Address>,
    /// The ids of those who spoke for themselves.
    spoke: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Claim {
    first: u16,
    last: u16,
    /// The younger of two claims has the higher.
    epoch: u64,
    owner: Address,
    id: String,
    /// Made by the owner itself.
    own: bool,
}

impl Slots {
    /// What a node at `asked` says; `names` prefers host names, which certificates are made for.
    pub(crate) fn read(text: &str, asked: &Address, names: bool) -> Self {
        let mut slots = Self::default();
        for line in text.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [id, address, flags, _, _, _, epoch, _, ranges @ ..] = fields.as_slice() else {
                continue;
            };
            let Some(address) = read_address(address, asked, names) else { continue };
            if !flags.split(',').any(|flag| flag == "noaddr" || flag == "handshake") {
                slots.nodes.insert(address.clone());
            }
            let own = flags.split(',').any(|flag| flag == "myself");
            if own {
                slots.spoke.insert((*id).to_owned());
            }
            let epoch = epoch.parse().unwrap_or(0);
            // A slot that is under way stands in brackets, and among the ranges of who still has it.
            for range in ranges.iter().filter(|range| !range.starts_with('[')) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                    let (owner, id) = (address.clone(), (*id).to_owned());
                    slots.claims.push(Claim { first, last, epoch, owner, id, own });
                }
            }
        }
        slots
    }

    /// Adds what another node says.
    pub(crate) fn merge(&mut self, other: Self) {
        self.claims.extend(other.claims);
        self.nodes.extend(other.nodes);
        self.spoke.extend(other.spoke);
    }

    /// Who has a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Address> {
        let claims = self.believed().filter(|claim| (claim.first..=claim.last).contains(&slot));
        claims.max_by_key(|claim| claim.epoch).map(|claim| &claim.owner)
    }

    /// Whether a node has any slot.
    pub(crate) fn owns(&self, address: &Address) -> bool {
        self.believed().any(|claim| claim.owner == *address)
    }

    /// What a node has it knows best. Others may still believe that it has a slot which it gave away, and yet know
    /// that it has since become the younger of the two.
    fn believed(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| claim.own || !self.spoke.contains(&claim.id))
    }

    /// Every node that was named.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Address> {
        self.nodes.iter()
    }
}

/// `ip:port@bus-port[,hostname]`, with an empty ip where a node does not know its own.
fn read_address(text: &str, asked: &Address, names: bool) -> Option<Address> {
    let (text, name) = text.split_once(',').unwrap_or((text, ""));
    let (ip, port) = text.split('@').next()?.rsplit_once(':')?;
    let name = name.split(',').next().unwrap_or_default();
    let host = match (ip, asked) {
        _ if names && !name.is_empty() => name,
        ("", Address::Tcp { host, .. }) => host,
        (ip, _) => ip,
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    const NODES: &str = "\
a 10.0.0.1:7000@17000,one.example master - 0 0 3 connected 0-99 200 [150->-b]\n\
b :7001@17001 myself,master - 0 0 4 connected 100-199\n\
c 10.0.0.3:7002@17002 slave a 0 0 3 connected\n\
d :0@0 master,noaddr - 0 0 1 disconnected\n";

    #[test]
    fn nodes_tell_who_has_which_slot() {
        let slots = Slots::read(NODES, &tcp("asked", 1), false);
        assert_eq!(slots.owner(0), Some(&tcp("10.0.0.1", 7000)));
        assert_eq!(slots.owner(200), Some(&tcp("10.0.0.1", 7000)));
        assert_eq!(slots.owner(150), Some(&tcp("asked", 7001)));
        assert_eq!(slots.owner(201), None);
        let nodes: Vec<_> = slots.nodes().cloned().collect();
        assert_eq!(nodes, [tcp("10.0.0.1", 7000), tcp("10.0.0.3", 7002), tcp("asked", 7001)]);
        let named = Slots::read(NODES, &tcp("asked", 1), true);
        assert_eq!(named.owner(0), Some(&tcp("one.example", 7000)));
    }

    #[test]
    fn the_younger_claim_to_a_slot_is_true() {
        let mut slots = Slots::read(NODES, &tcp("asked", 1), false);
        let text = "c 10.0.0.3:7002@17002 myself,master - 0 0 5 connected 0-99\n";
        slots.merge(Slots::read(text, &tcp("asked", 2), false));
        assert_eq!(slots.owner(50), Some(&tcp("10.0.0.3", 7002)));
        let older = "d 10.0.0.4:7003@17003 master - 0 0 1 connected 100-199\n";
        slots.merge(Slots::read(older, &tcp("asked", 3), false));
        assert_eq!(slots.owner(100), Some(&tcp("asked", 7001)));
        assert!(slots.owns(&tcp("10.0.0.3", 7002)) && !slots.owns(&tcp("10.0.0.9", 1)));
    }

    #[test]
    fn a_node_knows_best_what_it_gave_away() {
        // It has since taken another slot, and with it a younger epoch than the new owner's.
        let behind = "a 10.0.0.1:7000@17000 master - 0 0 7 connected 0-200\n";
        let mut slots = Slots::read(behind, &tcp("10.0.0.9", 7000), false);
        let taker = "b 10.0.0.2:7000@17000 myself,master - 0 0 6 connected 100\n";
        slots.merge(Slots::read(taker, &tcp("10.0.0.2", 7000), false));
        assert_eq!(slots.owner(100), Some(&tcp("10.0.0.1", 7000)));
        let giver = "a 10.0.0.1:7000@17000 myself,master - 0 0 7 connected 0-99 101-200\n";
        slots.merge(Slots::read(giver, &tcp("10.0.0.1", 7000), false));
        assert_eq!(slots.owner(100), Some(&tcp("10.0.0.2", 7000)));
        assert_eq!(slots.owner(101), Some(&tcp("10.0.0.1", 7000)));
    }
}
