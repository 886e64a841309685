//! The programs of the README, exactly as they stand there.

mod service;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use service::Service;

const PROGRAMS: [&str; 2] = ["caller", "worker"];

/// Return the folder of the build, in which this test lies too.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let folder = test.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    folder.expect("a folder of cargo").to_owned()
}

/// Build the programs in a package that depends on this one, and return their paths.
fn build() -> Vec<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(package.join("README.md")).expect("the README");
    let blocks = readme.split("```rust\n").skip(1).filter_map(|text| text.split("```").next());
    let programs: Vec<&str> = blocks.filter(|text| text.contains("fn main()")).collect();
    assert_eq!(programs.len(), PROGRAMS.len(), "the programs of the README");
    let (target, folder) = (build_folder(), build_folder().join("readme"));
    fs::create_dir_all(folder.join("src/bin")).expect("a folder");
    // The features are those of the tests, so that no dependency is built twice.
    let manifest = format!(
        "[package]\nname = \"readme\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\n\
         milepost-client = {{ path = '{}' }}\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\nserde_json = \"1\"\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\", \"fs\", \"io-std\", \
         \"io-util\"] }}\n[profile.dev]\ndebug = \"line-tables-only\"\n[workspace]\n",
        package.display()
    );
    fs::write(folder.join("Cargo.toml"), manifest).expect("the manifest is written");
    fs::copy(package.join("Cargo.lock"), folder.join("Cargo.lock")).expect("the same versions");
    for (name, text) in PROGRAMS.iter().zip(programs) {
        fs::write(folder.join(format!("src/bin/{name}.rs")), text).expect("a program is written");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the programs are built");
    PROGRAMS.iter().map(|name| target.join("debug").join(name)).collect()
}

fn start(program: &Path, service: &Service, role: &str) -> Child {
    Command::new(program)
        .env("MILEPOST_ADDRESS", &service.address)
        .env("MILEPOST_API_KEY", service.key(role))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// The caller of the README gets the result of its worker, which stops at a signal.
#[test]
fn programs_run_as_they_stand() {
    let programs = build();
    let service = Service::start(&[]);
    let mut worker = start(&programs[1], &service, "WORKER");
    let caller = start(&programs[0], &service, "CALLER").wait_with_output().expect("an output");
    let printed = String::from_utf8_lossy(&caller.stdout);
    let interrupted = Command::new("kill").arg("-TERM").arg(worker.id().to_string()).status();
    assert!(interrupted.expect("kill runs").success());
    let ended = worker.wait().expect("the worker ends");
    assert_eq!((caller.status.success(), printed.trim()), (true, "frames: 1200"));
    assert!(ended.success(), "the worker: {ended}");
}
