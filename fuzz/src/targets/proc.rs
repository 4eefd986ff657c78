//! Texts of the kernel: /proc/PID/stat, cgroup, mountinfo, files of a cgroup; and passwd of a root filesystem.

use crate::cgroup::{path, stats};
use crate::init::root::whole_kernel_view;
use crate::plan::list;
use crate::plan::process::{HOME_FALLBACK, home_in_passwd};
use crate::resctrl;
use crate::state::parse_stat;

pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = &*String::from_utf8_lossy(rest);
    match kind % 8 {
        0 => {
            // The name in the middle is the process's own choice.
            let _ = parse_stat(rest);
            let name = rest.get(..15.min(rest.len())).unwrap_or_default();
            let line = [b"77 (", name, b") S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 100 5 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"].concat();
            assert_eq!(parse_stat(&line).expect("a line of the kernel"), Some(4242), "{name:?}");
        }
        1 => {
            for controllers in ["memory", "cpu,cpuacct", "name=systemd", ""] {
                path::find_mount(text, controllers);
            }
            resctrl::mount_point(rest);
            for view in text.lines().filter_map(whole_kernel_view) {
                assert!(view.len() <= text.len());
            }
        }
        2 => {
            for membership in path::memberships(text) {
                for place in [path::Place::Root("a/b".into()), path::Place::Own("a/b".into())] {
                    for at in
                        [path::unified(&place, membership.path), path::hierarchy(&place, membership.path)]
                    {
                        assert!(at.split('/').all(|part| !matches!(part, "" | "." | "..")), "{at:?}");
                    }
                }
            }
            let _ = path::own_unified(text);
        }
        3 => {
            stats::psi(text);
            stats::device_lines(text);
            stats::page_size(text);
            assert!(stats::numbers(text).count() <= text.len());
            let mut blkio = stats::Blkio::default();
            text.lines().for_each(|line| stats::io_line(line, &mut blkio));
        }
        4 => {
            let numbers = stats::ranges(text);
            assert!(numbers.len() <= 65_536, "{} numbers", numbers.len());
        }
        5 => {
            let (wanted, present) = text.split_once('\0').unwrap_or((text, text));
            resctrl::is_in(wanted, present);
        }
        6 => {
            for uid in [0, 1, 1000] {
                if let Some(home) = home_in_passwd(rest, uid) {
                    assert!(home.to_bytes().len() > HOME_FALLBACK.to_bytes().len() - 1);
                }
            }
        }
        _ => {
            if let Ok(Some(mask)) = list::mask(text, "/x") {
                assert!(mask.len() <= 1025 && mask.iter().any(|&word| word != 0));
            }
        }
    }
}
