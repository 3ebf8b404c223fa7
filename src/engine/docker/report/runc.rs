//! The known vulnerabilities of a version of runc.

use std::cmp::Ordering;

/// A vulnerability through which code can escape from its container, and the first fixed version of each release line.
struct Vulnerability {
    cve: &'static str,
    fixed: &'static [&'static str],
}

/// Source: the advisories of opencontainers/runc.
const VULNERABILITIES: [Vulnerability; 4] = [
    Vulnerability { cve: "CVE-2024-21626", fixed: &["1.1.12"] },
    Vulnerability { cve: "CVE-2025-31133", fixed: &["1.2.8", "1.3.3", "1.4.0-rc.3"] },
    Vulnerability { cve: "CVE-2025-52565", fixed: &["1.2.8", "1.3.3", "1.4.0-rc.3"] },
    Vulnerability { cve: "CVE-2025-52881", fixed: &["1.2.8", "1.3.3", "1.4.0-rc.3"] },
];

/// A version without any of these vulnerabilities, for advice.
pub(super) const ADVISED: &str = "1.3.3";

/// The version of a release or of a release candidate, without a distribution's suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    /// The number of a release candidate, which comes before the release; `None` for the release.
    candidate: Option<u64>,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let mut numbers = numbers.split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let patch = numbers.next().unwrap_or(Ok(0)).ok()?;
        let candidate = rest.strip_prefix(['-', '~']).and_then(|rest| rest.strip_prefix("rc")).map(|rest| {
            let rest = rest.trim_start_matches('.');
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().unwrap_or(0)
        });
        Some(Self { major, minor, patch, candidate })
    }

    fn line(self) -> (u64, u64) {
        (self.major, self.minor)
    }

    fn compare(self, other: Self) -> Ordering {
        let key = |it: Self| (it.line(), it.patch, it.candidate.is_none(), it.candidate);
        key(self).cmp(&key(other))
    }
}

/// The vulnerabilities of a version, judged by its number alone. `None` if the number cannot be parsed.
pub(super) fn vulnerabilities(version: &str) -> Option<Vec<&'static str>> {
    let version = Version::parse(version)?;
    let is_open = |known: &&Vulnerability| {
        let fixed = || known.fixed.iter().filter_map(|fixed| Version::parse(fixed));
        // A release line with a fix has it from that version on. Lines above all fixed ones began with the fix; other
        // lines never got it.
        match fixed().find(|fixed| fixed.line() == version.line()) {
            Some(fixed) => version.compare(fixed).is_lt(),
            None => fixed().any(|fixed| version.compare(fixed).is_lt()),
        }
    };
    Some(VULNERABILITIES.iter().filter(is_open).map(|known| known.cve).collect())
}

/// Whether it is the version of a distribution's build, which may have fixes that its number does not show.
pub(super) fn is_distribution_build(version: &str) -> bool {
    ["+ds", "+deb", "-deb", "~deb", "ubuntu", ".el", ".fc", ".amzn"].iter().any(|mark| version.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVEMBER: [&str; 3] = ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"];

    #[test]
    fn versions_are_read_as_releases_candidates_and_distributions_write_them() {
        let version = |major, minor, patch, candidate| Some(Version { major, minor, patch, candidate });
        assert_eq!(Version::parse("1.1.5+ds1-1+deb12u1"), version(1, 1, 5, None));
        assert_eq!(Version::parse("v1.1.12-0-g51d5e94"), version(1, 1, 12, None));
        assert_eq!(Version::parse("1.4.0-rc.3"), version(1, 4, 0, Some(3)));
        assert_eq!(Version::parse("1.0.0~rc93+ds1"), version(1, 0, 0, Some(93)));
        assert_eq!(Version::parse("1.3"), version(1, 3, 0, None));
        assert_eq!(Version::parse("51d5e94"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn a_candidate_comes_before_its_release() {
        let compare = |a: &str, b: &str| Version::parse(a).unwrap().compare(Version::parse(b).unwrap());
        assert_eq!(compare("1.4.0-rc.3", "1.4.0"), Ordering::Less);
        assert_eq!(compare("1.4.0-rc.10", "1.4.0-rc.9"), Ordering::Greater);
        assert_eq!(compare("1.10.0", "1.9.9"), Ordering::Greater);
        assert_eq!(compare("1.2.8+ds", "1.2.8"), Ordering::Equal);
    }

    #[test]
    fn each_release_line_has_its_own_fix() {
        assert_eq!(vulnerabilities("1.1.5+ds1").unwrap().len(), 4);
        for open in ["1.1.12", "1.1.99", "1.2.7", "1.3.2", "1.4.0-rc.2"] {
            assert_eq!(vulnerabilities(open).unwrap(), NOVEMBER, "{open}");
        }
        for fixed in ["1.2.8", "1.2.9", "1.3.3", "1.4.0-rc.3", "1.4.0", "1.5.0-rc.1", "2.0.0"] {
            assert_eq!(vulnerabilities(fixed).unwrap(), [""; 0], "{fixed}");
        }
        assert_eq!(vulnerabilities("unknown"), None);
    }

    #[test]
    fn a_distributions_build_is_recognized_by_its_suffix() {
        assert!(is_distribution_build("1.1.5+ds1-1+deb12u1"));
        assert!(is_distribution_build("1.1.12-0ubuntu2~22.04.1"));
        assert!(!is_distribution_build("v1.1.12-0-g51d5e94"));
        assert!(!is_distribution_build("1.4.0-rc.3"));
    }
}
