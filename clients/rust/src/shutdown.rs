//! The signals that stop a program.

use std::io;

/// Wait for the signal that asks this program to stop: SIGTERM or SIGINT; without Unix, Ctrl-C.
///
/// A second one ends the program at once, with exit code 1. For programs that only run a worker:
///
/// ```no_run
/// # async fn work(worker: milepost::Worker) -> Result<(), milepost::Error> {
/// worker.run(milepost::shutdown_signal()).await
/// # }
/// ```
///
/// # Panics
///
/// If the system refuses to watch for signals.
pub async fn shutdown_signal() {
    signal().await.expect("the system watches for signals");
    tokio::spawn(async {
        if signal().await.is_ok() {
            std::process::exit(1);
        }
    });
}

#[cfg(unix)]
async fn signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn signal() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
