//! Reads a public key from a PEM: exactly the forms that openssl writes, and no other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A public key by its kind.
#[derive(Debug, PartialEq)]
pub(crate) enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point of P-256 or P-384.
    Ec(Vec<u8>),
    /// An Ed25519 key.
    Ed(Vec<u8>),
}

/// The key of a PEM that holds one public key and nothing else.
pub(crate) fn read_public_key(pem: &[u8]) -> Option<PublicKey> {
    let text = std::str::from_utf8(pem).ok()?.trim();
    if let Some(der) = body(text, "RSA PUBLIC KEY") {
        return rsa(&der);
    }
    // RFC 5280, section 4.1: a sequence of the algorithm and, in a bit string, the key.
    let der = body(text, "PUBLIC KEY")?;
    let (info, []) = element(0x30, &der)? else { return None };
    let (algorithm, info) = element(0x30, info)?;
    let ([0, key @ ..], []) = element(0x03, info)? else { return None };
    match algorithm {
        RSA => rsa(key),
        P256 if key.len() == 65 => Some(PublicKey::Ec(key.to_vec())),
        P384 if key.len() == 97 => Some(PublicKey::Ec(key.to_vec())),
        ED25519 if key.len() == 32 => Some(PublicKey::Ed(key.to_vec())),
        _ => None,
    }
}

/// RFC 8017, section A.1.1: a sequence of the modulus and the exponent.
fn rsa(der: &[u8]) -> Option<PublicKey> {
    let (key, []) = element(0x30, der)? else { return None };
    let (modulus, rest) = element(0x02, key)?;
    let (exponent, []) = element(0x02, rest)? else { return None };
    Some(PublicKey::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
}

fn body(text: &str, label: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let text = text.strip_suffix(&format!("-----END {label}-----"))?;
    let digits: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(digits).ok()
}

/// The content of the first DER element, which must have this tag, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der {
        [found, length @ 0..=0x7f, rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x81, length, rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x82, high, low, rest @ ..] if *found == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// rsaEncryption, with its NULL.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// id-ecPublicKey on prime256v1.
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// id-ecPublicKey on secp384r1.
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
/// id-Ed25519 (RFC 8410).
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
