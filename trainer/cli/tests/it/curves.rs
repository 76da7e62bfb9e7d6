//! How a training went: the same numbers in the log, at a terminal's bar, and with the record.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
};

use lethe_api::contract::{Digest, Metrics, RecordBody, exit};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::world::{World, arguments, fixed, read_record, trainer};

#[test]
fn the_curves_are_kept_with_the_record_and_the_log_has_the_same_numbers() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 70);
    let ended = world.run(&plan);
    let RecordBody::Forget(record) = read_record(world.path(), &plan, &ended) else {
        panic!("not the record of a forgetting")
    };
    let curves = world.curves(&record.curves.unwrap());
    assert_eq!(curves.iter().map(|line| line.step).collect::<Vec<_>>(), [20, 40, 60, 70]);
    let branches = ["fake score (forget)", "fake score (remain)", "generator (forget)", "generator (remain)"];
    for line in &curves {
        assert_eq!((line.stage.as_str(), line.total, line.images), ("forget", 70, line.step * 192));
        assert!(line.losses.keys().eq(branches), "{line:?}");
        assert!(line.gradient_norms.keys().eq(["fake score", "generator"]), "{line:?}");
        assert!(line.gradient_norms.values().all(|norm| *norm > 0.0), "{line:?}");
    }
    let looks: Vec<bool> = curves.iter().map(|line| line.looks.contains_key("leak")).collect();
    assert_eq!(looks, [false, true, false, true]);

    let logged: Vec<Metrics> =
        ended.stderr.lines().filter_map(|line| Metrics::parse_lines(line).ok()?.pop()).collect();
    let last = logged.last().expect("the end of a training is always logged");
    assert_eq!(last.reproducible(), curves[3]);
    assert!(last.seconds_per_1000_images > Some(0.0) && last.memory_bytes > Some(0), "{last:?}");
    assert!(logged.iter().all(|line| curves.contains(&line.reproducible())), "{logged:?}");
}

#[test]
fn preparing_keeps_its_curves_too() {
    let world = World::new();
    let curves = world.curves(world.prepared.curves.as_ref().unwrap());
    assert_eq!(
        curves.iter().map(|line| (line.stage.as_str(), line.step)).collect::<Vec<_>>(),
        [("distil", 2)]
    );
}

/// Runs a command whose stderr is a terminal: its exit code, and what was on the screen.
fn at_a_terminal(command: &mut Command) -> (Option<i32>, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let screen = fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::from(screen)).spawn().unwrap();
    // Its end is seen once nobody holds the other side.
    command.stderr(Stdio::null());
    let mut shown = Vec::new();
    let _ = fs::File::from(terminal).read_to_end(&mut shown);
    (process.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn an_error_is_one_plain_line_at_a_terminal_and_json_elsewhere() {
    let mut command = trainer();
    command.args(["show", Digest::of("nothing").as_str(), "--store", "file:///nowhere"]);
    let (code, shown) = at_a_terminal(&mut command);
    assert_eq!(code, Some(exit::BAD_CONFIGURATION));
    let line = shown.trim_start_matches("\r\x1b[K").trim_end();
    assert!(line.starts_with("error: cannot open file:///nowhere") && !line.contains('\n'), "{shown:?}");
    let logged = command.stderr(Stdio::piped()).output().unwrap().stderr;
    let logged: serde_json::Value = serde_json::from_slice(&logged).unwrap();
    assert_eq!((&logged["level"], &logged["failure"]), (&"ERROR".into(), &"BadConfiguration".into()));
}

#[test]
fn a_terminal_gets_a_bar_and_no_json() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 40);
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    let mut command = trainer();
    let (code, shown) =
        at_a_terminal(command.args(arguments(world.path(), plan.task.kind())).arg("--no-port"));
    assert_eq!(code, Some(exit::DONE), "{shown}");
    assert!(shown.contains("forget ████████████████████████ 100 %  40/40"), "{shown}");
    assert!(shown.contains("\r\x1b[K") && !shown.contains("lethe.dev/metrics"), "{shown}");
}
