//! Patterns of names.

/// A pattern of names: `*` stands for any run of characters, also an empty one; all else is literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// A pattern. Every text is one.
    pub fn new(pattern: impl Into<Box<str>>) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `name` matches, without backtracking: between the first and the last
    /// literal each one takes the earliest place it finds.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let between = name.strip_prefix(first).and_then(|name| name.strip_suffix(last));
        let Some(mut between) = between else { return false };
        for literal in middle.split('*') {
            match between.split_once(literal) {
                _ if literal.is_empty() => {}
                Some((_, after)) => between = after,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_all_else_is_literal() {
        for (pattern, name) in [
            ("*", "anything"),
            ("**", "a"),
            ("a", "a"),
            ("a*", "a"),
            ("*a", "a"),
            ("a*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("*b*", "abc"),
            ("org.*", "org.x"),
            ("*ü", "grün-ü"),
            ("a*a", "aa"),
            ("ab*ba*ab", "abbaab"),
        ] {
            assert!(Pattern::new(pattern).matches(name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("a", "ab"),
            ("a", "A"),
            ("a*", "ba"),
            ("*a", "ab"),
            ("a*a", "a"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("org.*", "orgx"),
            ("?", "a"),
            ("[a]", "a"),
            ("a*x*b", "ab"),
        ] {
            assert!(!Pattern::new(pattern).matches(name), "{pattern} {name}");
        }
    }
}
