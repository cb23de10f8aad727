//! The corpora of the fuzz targets, and the inputs that once crashed one, are replayed on stable.

use std::fs;
use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "it is the library of another crate")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Runs every file of `corpus/<name>` and `crashes/<name>`.
fn replay(name: &str, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let corpus = files(&fuzz.join("corpus").join(name));
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
    for file in corpus.into_iter().chain(files(&fuzz.join("crashes").join(name))) {
        // Shown when the target panics.
        println!("{}", file.display());
        target(&fs::read(&file).expect("a file of a corpus can be read"));
    }
}

/// The files of a folder; none when there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn decode() {
    replay("decode", targets::decode);
}

#[test]
fn credentials() {
    replay("credentials", targets::credentials);
}

#[test]
fn websocket() {
    replay("websocket", targets::websocket);
}

#[test]
fn router() {
    replay("router", targets::router);
}
