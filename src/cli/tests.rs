//! Command lines of real callers (contract of runc 1.3 and 1.5) and what becomes of them.

use super::*;
use std::os::unix::ffi::OsStringExt;

fn read(line: &str) -> Result<Request, Refusal> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    let words: Vec<_> = std::iter::once("naru").chain(words).map(OsString::from).collect();
    parse(&words)
}

#[track_caller]
fn run(line: &str) -> (Global, Command) {
    match read(line) {
        Ok(Request::Run { global, command, .. }) => (global, command),
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn refusal(line: &str) -> Refusal {
    read(line).expect_err(line)
}

fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

#[test]
fn containerd_shim_create() {
    let (global, command) = run("--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json \
         --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring c1");
    assert_eq!(
        global,
        Global {
            root: path("/run/containerd/runc/k8s.io"),
            log: path("/b/log.json"),
            log_format: Format::Json,
            systemd_cgroup: true,
            ..Global::default()
        }
    );
    let create = Create {
        id: "c1".into(),
        bundle: path("/b"),
        console_socket: path("/s"),
        pid_file: path("/b/init.pid"),
        no_pivot: true,
        no_new_keyring: true,
        ..Create::default()
    };
    assert_eq!(command, Command::Create(create));
}

#[test]
fn buildkit_run_and_go_runc_single_dash() {
    let (_, command) =
        run("--log l --log-format json run -b /b --keep -no-subreaper -detach=true --preserve-fds=2 c1");
    let create = Create { id: "c1".into(), bundle: path("/b"), preserve_fds: 2, ..Create::default() };
    assert_eq!(command, Command::Run(Run { create, detach: true, keep: true, no_subreaper: true }));
}

#[test]
fn conmon_rs_repeats_and_the_last_one_wins() {
    let (global, command) = run("--root=/a --systemd-cgroup --root=/b --systemd-cgroup exec -d --tty \
         --pid-file=/p --pid-file /q --env A=1,2 -e B=3 -e=C= -g 1 --additional-gids=2 c1 sh -c x --env Z");
    assert_eq!((global.root, global.systemd_cgroup), (path("/b"), true));
    let Command::Exec(exec) = command else { panic!("{command:?}") };
    assert_eq!(exec.env, ["A=1,2", "B=3", "C="]);
    assert_eq!(exec.args, ["sh", "-c", "x", "--env", "Z"]);
    assert_eq!((exec.pid_file, exec.additional_gids), (path("/q"), vec![1, 2]));
    assert!(exec.detach && exec.tty);
}

#[test]
fn switches_take_truth_values_and_the_last_one_wins() {
    for (words, detach) in [
        ("", false),
        ("-d", true),
        ("-d=false", false),
        ("-d --detach=0", false),
        ("--detach=F -d=T", true),
        ("-detach=TRUE", true),
    ] {
        let Command::Run(args) = run(&format!("run {words} c1")).1 else { panic!("{words}") };
        assert_eq!(args.detach, detach, "{words}");
    }
    assert_eq!(refusal("--debug=x list").message, "invalid boolean value \"x\" for -debug: parse error");
    for (words, set) in [
        ("", None),
        ("--no-new-privs", Some(true)),
        ("--no-new-privs=false", Some(false)),
        ("--no-new-privs=false --no-new-privs", Some(true)),
        ("--no-new-privs --no-new-privs=false", Some(false)),
    ] {
        let Command::Exec(args) = run(&format!("exec {words} c1 x")).1 else { panic!("{words}") };
        assert_eq!(args.no_new_privs, set, "{words}");
    }
}

#[test]
fn exec_kill_and_ps_stop_at_the_id() {
    let Command::Exec(exec) = run("exec -p /p c1 --help -- -t").1 else { panic!() };
    assert_eq!((exec.args, exec.tty), (vec!["--help".into(), "--".into(), "-t".into()], false));
    let (_, command) = run("ps --format json c1 -aux");
    assert_eq!(
        command,
        Command::Ps(Ps { id: "c1".into(), format: OutputFormat::Json, args: vec!["-aux".into()] })
    );
    let kill = |signal: &str, all| Command::Kill(Kill { id: "c1".into(), signal: Some(signal.into()), all });
    assert_eq!(run("kill --all c1 9").1, kill("9", true));
    assert_eq!(run("kill -a c1 KILL").1, kill("KILL", true));
    assert_eq!(run("kill c1 -a").1, kill("-a", false));
    assert_eq!(run("kill c1").1, Command::Kill(Kill { id: "c1".into(), ..Kill::default() }));
}

#[test]
fn other_commands_take_flags_after_the_id() {
    let delete = Command::Delete { id: "c1".into(), force: true };
    assert_eq!(run("delete --force c1").1, delete);
    assert_eq!(run("delete c1 -f").1, delete);
    let Command::Create(create) = run("create c1 --bundle /b").1 else { panic!() };
    assert_eq!((create.id.as_str(), create.bundle), ("c1", path("/b")));
    assert_eq!(run("delete -- c1").1, Command::Delete { id: "c1".into(), force: false });
    assert_eq!(run("state -- -c1").1, Command::State { id: "-c1".into() });
    assert_eq!(run("-- state c1").1, Command::State { id: "c1".into() });
}

#[test]
fn a_value_may_look_like_anything() {
    let Command::Exec(exec) = run("exec --cwd -t --process-label= -u --help -c=a=b c1 - --").1 else {
        panic!()
    };
    assert_eq!((exec.cwd.as_deref(), exec.user.as_deref()), (Some("-t"), Some("--help")));
    assert_eq!((exec.process_label, exec.caps), (None, vec!["a=b".to_owned()]));
    assert_eq!(exec.args, ["-", "--"]);
    let words = [b"naru".to_vec(), b"create".to_vec(), b"-b".to_vec(), b"/\xff".to_vec(), b"c1".to_vec()];
    let request = parse(&words.map(OsString::from_vec));
    let Ok(Request::Run { command: Command::Create(create), .. }) = request else { panic!("{request:?}") };
    assert_eq!(create.bundle.unwrap().into_os_string().into_vec(), b"/\xff");
}

#[test]
fn pause_resume_and_update() {
    assert_eq!(run("pause c1").1, Command::Pause { id: "c1".into() });
    assert_eq!(run("resume c1").1, Command::Resume { id: "c1".into() });
    let update = Update { id: "c1".into(), resources: path("-"), ..Update::default() };
    for words in ["update --resources=- c1", "update -r - c1", "update c1 --resources -"] {
        assert_eq!(run(words).1, Command::Update(update.clone()), "{words}");
    }
    // A value may begin with a dash, and what the numbers are is checked later, but for these two.
    let words = "update --memory -1 --memory-swap=64m --cpu-quota -1 --pids-limit -1 --blkio-weight 9 c1";
    let update = Update {
        id: "c1".into(),
        memory: Some("-1".into()),
        memory_swap: Some("64m".into()),
        cpu_quota: Some("-1".into()),
        pids_limit: Some(-1),
        blkio_weight: 9,
        ..Update::default()
    };
    assert_eq!(run(words).1, Command::Update(update));
    for (words, message) in [
        ("update --pids-limit x c1", "invalid value \"x\" for flag -pids-limit: parse error"),
        ("update --pids-limit= c1", "invalid value \"\" for flag -pids-limit: parse error"),
        ("update --blkio-weight 1.5 c1", "invalid value \"1.5\" for flag -blkio-weight: parse error"),
        ("update --memory", "flag needs an argument: -memory"),
        ("update", "naru: \"update\" requires exactly 1 argument(s)"),
        ("pause a b", "naru: \"pause\" requires exactly 1 argument(s)"),
        ("resume", "naru: \"resume\" requires exactly 1 argument(s)"),
    ] {
        let refusal = refusal(words);
        assert_eq!((refusal.message.as_str(), refusal.code), (message, 1), "{words}");
    }
}

#[test]
fn events_take_durations_as_go_writes_them() {
    let interval = |words: &str| {
        let Command::Events(events) = run(&format!("events {words} c1")).1 else { panic!("{words}") };
        events.interval.map(|interval| interval.as_micros())
    };
    for (words, micros) in [
        ("", Some(5_000_000)),
        ("--interval 100ms", Some(100_000)),
        ("--interval=1m30s", Some(90_000_000)),
        ("--interval 1.5s", Some(1_500_000)),
        ("--interval 2h --stats", Some(7_200_000_000)),
        ("--interval 0", Some(0)),
        ("--interval 7us", Some(7)),
        ("--interval=-1s", None),
    ] {
        assert_eq!(interval(words), micros, "{words}");
    }
    for value in ["", "5", "s", "1x", "1s2", "1..5s", "ms", "-"] {
        let refusal = refusal(&format!("events --interval={value} c1"));
        assert_eq!(refusal.message, format!("invalid value \"{value}\" for flag -interval: parse error"));
    }
}

#[test]
fn empty_values_mean_none() {
    let words = ["naru", "--log", "", "--rootless=", "create", "--console-socket", "", "--bundle=", "c1"];
    let request = parse(&words.map(OsString::from));
    let Ok(Request::Run { global, command, .. }) = request else { panic!("{request:?}") };
    assert_eq!(global, Global::default());
    assert_eq!(command, Command::Create(Create { id: "c1".into(), ..Create::default() }));
}

#[test]
fn global_values() {
    assert_eq!(run("--rootless=True list").0.rootless, Some(true));
    assert_eq!(run("--rootless 0 list").0.rootless, Some(false));
    assert_eq!(run("--rootless AUTO list").0.rootless, None);
    assert_eq!(run("--criu /usr/sbin/criu list").0, Global::default());
    assert_eq!(run("--root /a/./b//../c/ list").0.root, path("/a/c"));
    let here = std::env::current_dir().unwrap();
    assert_eq!(run("--root x list").0.root, Some(here.join("x")));
    for (words, message) in [
        ("--root / list", "Option --root argument should not be set to /"),
        ("--root= list", "Option --root argument should not be set to /"),
        ("--root /a/../.. list", "Option --root argument should not be set to /"),
        ("--log-format xml list", "invalid log-format: xml"),
        ("--rootless maybe list", "invalid value \"maybe\" for flag -rootless: parse error"),
    ] {
        let refusal = refusal(words);
        assert_eq!((refusal.message.as_str(), refusal.code), (message, 1));
    }
}

#[test]
fn refusals_have_runcs_words() {
    // Printed by runc 1.3.6 for the same words.
    for (words, message, code) in [
        ("--bogus", "flag provided but not defined: -bogus", 1),
        ("-bogus state", "flag provided but not defined: -bogus", 1),
        ("create --bogus c1", "flag provided but not defined: -bogus", 1),
        ("create -bfoo c1", "flag provided but not defined: -bfoo", 1),
        ("--root", "flag needs an argument: -root", 1),
        ("create --bundle", "flag needs an argument: -bundle", 1),
        ("create -b", "flag needs an argument: -b", 1),
        ("create ---b c1", "bad flag syntax: ---b", 1),
        ("create", "naru: \"create\" requires exactly 1 argument(s)", 1),
        ("create a b", "naru: \"create\" requires exactly 1 argument(s)", 1),
        ("create -b --help", "naru: \"create\" requires exactly 1 argument(s)", 1),
        ("kill", "naru: \"kill\" requires a minimum of 1 argument(s)", 1),
        ("kill a b c", "naru: \"kill\" requires a maximum of 2 argument(s)", 1),
        ("exec", "naru: \"exec\" requires a minimum of 1 argument(s)", 1),
        ("ps", "naru: \"ps\" requires a minimum of 1 argument(s)", 1),
        ("spec a", "naru: \"spec\" requires exactly 0 argument(s)", 1),
        ("features a", "naru: \"features\" requires exactly 0 argument(s)", 1),
        ("create --preserve-fds x c1", "invalid value \"x\" for flag -preserve-fds: parse error", 1),
        ("exec -g x c1 ls", "invalid value \"x\" for flag -additional-gids: parse error", 1),
        ("list -f xml", "invalid format option \"xml\": neither table nor json", 1),
        ("bogus", "No help topic for 'bogus'", 3),
        ("bogus --help", "No help topic for 'bogus'", 3),
        ("help bogus", "No help topic for 'bogus'", 3),
        ("version", "No help topic for 'version'", 3),
    ] {
        let refusal = refusal(words);
        assert_eq!((refusal.message.as_str(), refusal.code), (message, code), "{words}");
        assert_eq!(refusal.usage.starts_with("Incorrect Usage"), code == 1, "{words}: {}", refusal.usage);
    }
}

#[test]
fn an_empty_id_is_refused_by_every_command_that_takes_one() {
    for definition in COMMANDS {
        let takes_id = (definition.args)().iter().any(|arg| arg.name == "container-id");
        if takes_id {
            let refusal = parse(&["naru", definition.name, ""].map(OsString::from)).unwrap_err();
            assert_eq!(refusal.message, "container id cannot be empty");
            // Podman and conmon tell exec's own failure by 255.
            assert_eq!(refusal.code, if definition.name == "exec" { 255 } else { 1 });
        }
    }
}

#[test]
fn a_refused_command_is_logged_where_the_global_flags_say() {
    let refusal = refusal("--log /l --log-format json state --bogus");
    assert_eq!((refusal.global.log, refusal.global.log_format), (path("/l"), Format::Json));
}

#[test]
fn checkpoint_and_restore_are_there_for_who_probes() {
    // Podman and CRI-O take exit 0 of `checkpoint --help` for support.
    for command in ["checkpoint", "restore"] {
        assert!(matches!(read(&format!("{command} --help")), Ok(Request::Help(_))));
    }
    // Podman learns from this text whether pods can be restored.
    assert_eq!(refusal("restore --lsm-mount-context").message, "flag needs an argument: -lsm-mount-context");
}

#[test]
fn podman_checkpoint_and_go_runc_restore() {
    let (_, command) = run("checkpoint --image-path /i --work-path /w --leave-running --leave-running \
         --tcp-established --file-locks --status-fd -1 --empty-ns network c1");
    let criu = Criu {
        image_path: path("/i"),
        work_path: path("/w"),
        tcp_established: true,
        file_locks: true,
        empty_ns: vec!["network".into()],
        ..Criu::default()
    };
    let wanted = Checkpoint { id: "c1".into(), criu, leave_running: true, ..Checkpoint::default() };
    assert_eq!(command, Command::Checkpoint(wanted));
    let (_, command) =
        run("restore --image-path /i --detach --pid-file /p -no-subreaper --tcp-close --bundle /b c1");
    let wanted = Restore {
        create: Create { id: "c1".into(), bundle: path("/b"), pid_file: path("/p"), ..Create::default() },
        criu: Criu { image_path: path("/i"), ..Criu::default() },
        detach: true,
        no_subreaper: true,
        tcp_close: true,
        ..Restore::default()
    };
    assert_eq!(command, Command::Restore(wanted));
}

#[test]
fn help_works_everywhere() {
    for words in ["", "-h", "--help", "help", "h", "--debug --help state"] {
        let Ok(Request::Help(text)) = read(words) else { panic!("{words}") };
        assert!(text.starts_with("NAME:\n   naru - Open Container Initiative runtime\n"), "{text}");
    }
    for definition in COMMANDS {
        let name = definition.name;
        let stops = definition.stops;
        for words in [
            format!("{name} -h"),
            format!("{name} --help"),
            format!("help {name}"),
            format!("{name} x y z -h"),
        ] {
            if stops && words.contains(" x ") {
                continue;
            }
            let Ok(Request::Help(text)) = read(&words) else { panic!("{words}") };
            assert!(text.starts_with(&format!("NAME:\n   naru {name} - ")), "{text}");
        }
    }
    for words in ["--version", "-v", "-V", "--version state"] {
        assert_eq!(read(words), Ok(Request::Version));
    }
}

#[test]
fn the_definitions_are_sound_for_clap() {
    tree("naru").debug_assert();
    // Every flag of a command can be given together with every global one.
    for definition in COMMANDS {
        let words = (definition.args)().iter().fold(String::new(), |words, arg| match arg.long() {
            Some(long) if arg.kind == arg::Kind::Switch => format!("{words} --{long}"),
            Some("format") => words + " --format json",
            Some("interval") => words + " --interval 1s",
            Some(long) => format!("{words} --{long} 1"),
            None => words,
        });
        let ids =
            if (definition.args)().iter().any(|arg| arg.kind == arg::Kind::Positional) { "c1" } else { "" };
        run(&format!(
            "--debug --log l --log-format json --root /r --systemd-cgroup --rootless 1 --criu c {} {words} {ids}",
            definition.name
        ));
    }
}
