//! Device rules → the set of exceptions that cgroup v1 would hold, for both versions.
//!
//! Pure. cgroup v1 keeps a default and a set of exceptions, not an ordered list: a rule for all devices resets both,
//! a rule that agrees with the default takes exceptions back, one that differs adds one. v2 has no such interface, so
//! that its program (`device_program`) is compiled from the very same set, and a configuration means the same on
//! both. Called by `cgroup::plan`.

use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType};

/// mknod(2).
pub const MKNOD: u8 = 1;
/// Open for reading.
pub const READ: u8 = 2;
/// Open for writing.
pub const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// What an exception is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Block device.
    Block,
    /// Character device.
    Char,
}

/// Devices and accesses that are treated against the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Block or character.
    pub kind: Kind,
    /// Absent: every major number.
    pub major: Option<u32>,
    /// Absent: every minor number.
    pub minor: Option<u32>,
    /// [`MKNOD`], [`READ`], [`WRITE`].
    pub access: u8,
}

impl Exception {
    fn same_devices(&self, other: &Exception) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Is it about every device of its kind?
    pub fn is_any(&self) -> bool {
        self.major.is_none() && self.minor.is_none()
    }

    /// Is every device of `other` one of `self`?
    pub fn covers(&self, other: &Exception) -> bool {
        let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
        self.kind == other.kind && covers(self.major, other.major) && covers(self.minor, other.minor)
    }

    /// Is there a device of both?
    fn meets(&self, other: &Exception) -> bool {
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meets(self.major, other.major) && meets(self.minor, other.minor)
    }

    /// The form of `devices.allow` and `devices.deny`.
    pub fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let mut line = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')] {
            if self.access & bit != 0 {
                line.push(letter);
            }
        }
        line
    }
}

/// The device policy of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What happens to a device that no exception is about.
    pub allow_by_default: bool,
    /// In the order in which they were added; no two for the same devices.
    pub exceptions: Vec<Exception>,
    /// Every rule of the configuration allows read, write and mknod: a kernel that refuses the program
    /// takes nothing away that the configuration asked for.
    pub only_allows: bool,
}

/// Path, kind, major and minor number, access.
type Standard = (Option<&'static str>, Kind, Option<u32>, Option<u32>, u8);

/// Appended to every configuration, as the specification's default devices must work: mknod of any device (which
/// gives no access to it), the default devices, pseudo-terminals, and tun (removed once from runc, restored after
/// regressions). An entry of `linux.devices` with the same path stands in for the default one.
const ALWAYS_ALLOWED: [Standard; 11] = [
    (None, Kind::Char, None, None, MKNOD),
    (None, Kind::Block, None, None, MKNOD),
    (Some("/dev/null"), Kind::Char, Some(1), Some(3), ALL),
    (Some("/dev/random"), Kind::Char, Some(1), Some(8), ALL),
    (Some("/dev/full"), Kind::Char, Some(1), Some(7), ALL),
    (Some("/dev/tty"), Kind::Char, Some(5), Some(0), ALL),
    (Some("/dev/zero"), Kind::Char, Some(1), Some(5), ALL),
    (Some("/dev/urandom"), Kind::Char, Some(1), Some(9), ALL),
    (None, Kind::Char, Some(136), None, ALL),
    (None, Kind::Char, Some(5), Some(2), ALL),
    (None, Kind::Char, Some(10), Some(200), ALL),
];

/// Most rules of a configuration: each is compared with all before it.
const MAX_RULES: usize = 16 << 10;
/// Where the rules of a policy stand in the configuration.
const FIELD: &str = "/linux/resources/devices";

impl Policy {
    /// The policy of a configuration. Errors name the rule.
    pub fn of(linux: &Linux) -> Result<Policy> {
        let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default();
        let own = linux.devices().as_deref().unwrap_or_default();
        if rules.len() > MAX_RULES {
            bail!("{FIELD}: {} rules are more than {MAX_RULES}", rules.len());
        }
        let mut policy = Policy { allow_by_default: false, exceptions: Vec::new(), only_allows: true };
        for (i, rule) in rules.iter().enumerate() {
            policy.add(rule, &format!("{FIELD}/{i}"))?;
        }
        for (path, kind, major, minor, access) in ALWAYS_ALLOWED {
            if path.is_none_or(|path| !own.iter().any(|device| device.path().as_os_str() == path)) {
                policy.apply(true, Exception { kind, major, minor, access }, FIELD)?;
            }
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup, field: &str) -> Result<()> {
        let access = access(rule.access().as_deref().unwrap_or_default(), field)?;
        self.only_allows &= rule.allow() && access == ALL;
        let kind = match rule.typ().unwrap_or_default() {
            // Like the kernel: whatever else the rule says, all devices are meant and what was said before is void.
            LinuxDeviceType::A => {
                self.allow_by_default = rule.allow();
                self.exceptions.clear();
                return Ok(());
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C => Kind::Char,
            other => bail!("{field}/type: {:?} is not one of \"a\", \"b\", \"c\"", other.as_str()),
        };
        let major = number(rule.major(), field, "major")?;
        let minor = number(rule.minor(), field, "minor")?;
        self.apply(rule.allow(), Exception { kind, major, minor, access }, field)
    }

    fn apply(&mut self, allow: bool, new: Exception, field: &str) -> Result<()> {
        if allow != self.allow_by_default {
            match self.exceptions.iter_mut().find(|old| old.same_devices(&new)) {
                Some(old) => old.access |= new.access,
                None => self.exceptions.push(new),
            }
            return Ok(());
        }
        // What the rule agrees with the default about, it takes back. Where that is a part of a wildcard, cgroup v1
        // ignores it without a word and the configuration would not hold what it says.
        let hole = |old: &&Exception| {
            let partly = match allow {
                // runc's limit: a part that is not taken back keeps access away.
                true => old.covers(&new) && !old.same_devices(&new),
                false => old.meets(&new) && !new.covers(old),
            };
            partly && old.access & new.access != 0
        };
        if let Some(old) = self.exceptions.iter().find(hole) {
            bail!("{field}: rule [{}] cannot punch a hole in the earlier [{}]", new.line(), old.line());
        }
        for old in &mut self.exceptions {
            // cgroup v1 knows exceptions only by their exact numbers and would leave narrower ones as they are. To deny
            // all of `c 1:*` after `c 1:3` was allowed must hold; to allow it after a denial would give access away.
            if old.same_devices(&new) || (!allow && new.covers(old)) {
                old.access &= !new.access;
            }
        }
        self.exceptions.retain(|one| one.access != 0);
        Ok(())
    }

    /// What to write on cgroup v1, in order: file and line. The first resets what was inherited from the parent.
    pub fn v1_lines(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let (default, exception) = match self.allow_by_default {
            true => ("devices.allow", "devices.deny"),
            false => ("devices.deny", "devices.allow"),
        };
        let reset = (default, "a *:* rwm".to_string());
        std::iter::once(reset).chain(self.exceptions.iter().map(move |one| (exception, one.line())))
    }

    /// What the kernel answers on cgroup v1: the reference for the program of v2.
    #[cfg(test)]
    pub fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let about = |one: &&Exception| {
            one.kind == kind && one.major.is_none_or(|n| n == major) && one.minor.is_none_or(|n| n == minor)
        };
        let mut matching = self.exceptions.iter().filter(about);
        match self.allow_by_default {
            // One exception must grant all of it.
            false => matching.any(|one| access & !one.access == 0),
            // No exception may be about any of it.
            true => !matching.any(|one| access & one.access != 0),
        }
    }
}

fn access(letters: &str, field: &str) -> Result<u8> {
    let mut access = 0;
    for letter in letters.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            // runc passes other letters over, and old configurations have them.
            _ => 0,
        };
    }
    if access == 0 {
        match letters {
            "" => bail!("{field}/access: cannot be empty"),
            other => bail!("{field}/access: {other:?} has none of r, w, m"),
        }
    }
    Ok(access)
}

fn number(number: Option<i64>, field: &str, name: &str) -> Result<Option<u32>> {
    match number {
        // runc's own word for "every".
        None | Some(-1) => Ok(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => bail!("{field}/{name}: {n} is not a device number"),
        },
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn linux(rules: &str) -> Linux {
        serde_json::from_str(&format!(r#"{{"resources":{{"devices":{rules}}}}}"#)).unwrap()
    }

    pub fn policy(rules: &str) -> Policy {
        Policy::of(&linux(rules)).unwrap()
    }

    const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;
    const ALLOW_ALL: &str = r#"{"allow":true,"type":"a","access":"rwm"}"#;

    fn lines(policy: &Policy) -> Vec<String> {
        policy.v1_lines().map(|(file, line)| format!("{} {line}", &file[8..])).collect()
    }

    #[test]
    fn default_rules() {
        let expected = [
            "deny a *:* rwm",
            "allow c *:* m",
            "allow b *:* m",
            "allow c 1:3 rwm",
            "allow c 1:8 rwm",
            "allow c 1:7 rwm",
            "allow c 5:0 rwm",
            "allow c 1:5 rwm",
            "allow c 1:9 rwm",
            "allow c 136:* rwm",
            "allow c 5:2 rwm",
            "allow c 10:200 rwm",
        ];
        assert_eq!(lines(&policy("[]")), expected);
        assert_eq!(lines(&policy(&format!("[{DENY_ALL}]"))), expected);
        assert_eq!(lines(&policy(&format!("[{ALLOW_ALL},{DENY_ALL}]"))), expected);
        assert_eq!(lines(&Policy::of(&Linux::default()).unwrap()).len(), 12);
    }

    #[test]
    fn a_rule_for_all_devices_resets() {
        // Privileged: nothing is left of the list that is appended.
        assert_eq!(lines(&policy(&format!("[{DENY_ALL},{ALLOW_ALL}]"))), ["allow a *:* rwm"]);
        // Its numbers and access do not narrow it.
        let odd = r#"[{"allow":true,"type":"a","major":5,"minor":1,"access":"r"}]"#;
        assert_eq!(lines(&policy(odd)), ["allow a *:* rwm"]);
    }

    #[test]
    fn later_rules_add_to_and_take_from_earlier_ones() {
        let rules = |text: &str| policy(&format!("[{ALLOW_ALL},{text}]"));
        let deny = r#"{"allow":false,"type":"b","major":8,"minor":0,"access":"rw"}"#;
        let deny_more = r#"{"allow":false,"type":"b","major":8,"minor":0,"access":"m"}"#;
        let allow_some = r#"{"allow":true,"type":"b","major":8,"minor":0,"access":"r"}"#;
        assert_eq!(lines(&rules(deny)), ["allow a *:* rwm", "deny b 8:0 rw"]);
        assert_eq!(lines(&rules(&format!("{deny},{deny_more}"))), ["allow a *:* rwm", "deny b 8:0 rwm"]);
        assert_eq!(lines(&rules(&format!("{deny},{allow_some}"))), ["allow a *:* rwm", "deny b 8:0 w"]);
        // What was never allowed can be denied.
        let fuse = r#"{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}"#;
        assert_eq!(lines(&policy(&format!("[{DENY_ALL},{fuse}]"))).len(), 12);
        // A wide denial takes back the narrow permissions before it, a wide permission no narrow denial.
        let narrow = r#"{"allow":true,"type":"c","major":4,"minor":64,"access":"rw"}"#;
        let wide = r#"{"allow":false,"type":"c","access":"w"}"#;
        let result = lines(&policy(&format!("[{narrow},{wide}]")));
        assert_eq!((result[1].as_str(), result.len()), ("allow c 4:64 r", 13));
        let narrow = r#"{"allow":false,"type":"c","major":4,"minor":64,"access":"rw"}"#;
        let wide = r#"{"allow":true,"type":"c","access":"rwm"}"#;
        assert_eq!(lines(&rules(&format!("{narrow},{wide}"))), ["allow a *:* rwm", "deny c 4:64 rw"]);
        // -1 is a wildcard.
        let wild = r#"{"allow":false,"type":"b","major":-1,"minor":-1,"access":"r"}"#;
        assert_eq!(lines(&rules(wild)), ["allow a *:* rwm", "deny b *:* r"]);
    }

    #[test]
    fn a_device_of_the_configuration_replaces_the_default_rule() {
        let text = r#"{"devices":[{"path":"/dev/null","type":"c","major":1,"minor":3}]}"#;
        let linux: Linux = serde_json::from_str(text).unwrap();
        let policy = Policy::of(&linux).unwrap();
        assert!(!policy.exceptions.iter().any(|one| (one.major, one.minor) == (Some(1), Some(3))));
        assert_eq!(policy.exceptions.len(), 10);
    }

    #[test]
    fn refusals_name_the_rule() {
        for (rules, expected) in [
            (r#"[{"allow":true}]"#, "/linux/resources/devices/0/access: cannot be empty"),
            (r#"[{"allow":true,"access":""}]"#, "/linux/resources/devices/0/access: cannot be empty"),
            (
                r#"[{"allow":true,"access":"xa"}]"#,
                r#"/linux/resources/devices/0/access: "xa" has none of r, w, m"#,
            ),
            (
                r#"[{"allow":true,"type":"p","access":"r"}]"#,
                r#"/linux/resources/devices/0/type: "p" is not one of "a", "b", "c""#,
            ),
            (
                r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
                "/linux/resources/devices/0/major: -2 is not a device number",
            ),
            (
                r#"[{"allow":true,"type":"c","major":1,"minor":4294967296,"access":"r"}]"#,
                "/linux/resources/devices/0/minor: 4294967296 is not a device number",
            ),
            (
                r#"[{"allow":true,"type":"c","access":"rw"},{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#,
                "/linux/resources/devices/1: rule [c 1:3 w] cannot punch a hole in the earlier [c *:* rw]",
            ),
            (
                r#"[{"allow":true,"type":"c","major":4,"access":"rw"},{"allow":false,"type":"c","minor":64,"access":"r"}]"#,
                "/linux/resources/devices/1: rule [c *:64 r] cannot punch a hole in the earlier [c 4:* rw]",
            ),
            (
                // The list that is appended counts as well.
                r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":5,"access":"rwm"}]"#,
                "/linux/resources/devices: rule [c 5:0 rwm] cannot punch a hole in the earlier [c 5:* rwm]",
            ),
        ] {
            let error = Policy::of(&linux(rules)).map(|_| ()).unwrap_err().to_string();
            assert_eq!(error, expected, "{rules}");
        }
    }

    #[test]
    fn rules_are_bounded() {
        let rule = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}"#;
        let error =
            Policy::of(&linux(&format!("[{rule}{}]", format!(",{rule}").repeat(MAX_RULES)))).unwrap_err();
        assert_eq!(error.to_string(), "/linux/resources/devices: 16385 rules are more than 16384");
    }

    #[test]
    fn which_policies_take_nothing_away() {
        assert!(policy("[]").only_allows);
        assert!(policy(&format!("[{ALLOW_ALL}]")).only_allows);
        assert!(!policy(&format!("[{DENY_ALL}]")).only_allows);
        assert!(!policy(r#"[{"allow":true,"type":"c","major":9,"access":"rw"}]"#).only_allows);
    }
}
