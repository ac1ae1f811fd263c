//! `*`, `?` and `**` in names.

/// Whether a path or key matches: `*` is any run without `/`, `**` any run, `?` any character but `/`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    fits(pattern.as_bytes(), name.as_bytes())
}

/// Whether a word has wildcards.
pub(super) fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?'])
}

/// The folder that stands before the first wildcard, with its `/`.
pub(super) fn fixed_folder(pattern: &str) -> &str {
    let wild = pattern.find(['*', '?']).unwrap_or(pattern.len());
    &pattern[..pattern[..wild].rfind('/').map_or(0, |at| at + 1)]
}

/// How many folders deep below [`fixed_folder`] a pattern looks.
pub(super) fn depth(pattern: &str) -> usize {
    let rest = &pattern[fixed_folder(pattern).len()..];
    if rest.contains("**") { usize::MAX } else { rest.matches('/').count() }
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` and the last `**` may begin anew: pattern behind them, name.
    let mut star: Option<(usize, usize)> = None;
    let mut stars: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(b'*'), _) if pattern.get(p + 1) == Some(&b'*') => {
                // `**/` also stands for no folder at all.
                p += if pattern.get(p + 2) == Some(&b'/') { 3 } else { 2 };
                stars = Some((p, n));
                star = None;
                continue;
            }
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, n));
                continue;
            }
            (Some(b'?'), Some(c)) if *c != b'/' => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            (Some(want), Some(c)) if want == c => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            _ => {}
        }
        match (&mut star, &mut stars) {
            (Some((at, from)), _) if name.get(*from).is_some_and(|c| *c != b'/') => {
                *from += 1;
                (p, n) = (*at, *from);
            }
            (_, Some((at, from))) if *from < name.len() => {
                *from += 1;
                (p, n) = (*at, *from);
                star = None;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{depth, fixed_folder, matches};

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, wanted) in [
            ("a/*.csv", "a/b.csv", true),
            ("a/*.csv", "a/b/c.csv", false),
            ("a/**/*.csv", "a/b/c.csv", true),
            ("a/**/*.csv", "a/c.csv", true),
            ("**.csv", "a/b/c.csv", true),
            ("a?c*", "abcdef", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("a", "", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
        let hostile = "*a".repeat(40);
        assert!(!matches(&hostile, &"a".repeat(39)));
    }

    #[test]
    fn knows_where_to_look() {
        assert_eq!(fixed_folder("s3://b/x/y-*.csv"), "s3://b/x/");
        assert_eq!(fixed_folder("*.csv"), "");
        assert_eq!((depth("a/*.csv"), depth("a/*/*.csv"), depth("**.csv")), (0, 1, usize::MAX));
    }
}
