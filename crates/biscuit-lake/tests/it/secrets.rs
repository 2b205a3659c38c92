//! The process prints and writes no secrets of URLs or of the environment.

use std::process::Command;

use crate::binary::Folder;

const SECRET: &str = "S3CRETpw";

/// Returns everything that a command prints, and the report that it writes.
fn output(f: &Folder, words: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biscuit"));
    for name in
        std::env::vars().map(|(k, _)| k).filter(|k| k.starts_with("AWS_") || k.to_lowercase().ends_with("_proxy"))
    {
        command.env_remove(name);
    }
    let quick = [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG"),
        ("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEXAMPLE"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let out = command.args(words).current_dir(f.path()).env("RUST_LOG", "trace").envs(quick).envs(env.iter().copied());
    let out = out.output().expect("the binary starts");
    let report = std::fs::read_to_string(f.path().join("report.json")).unwrap_or_default();
    let text = format!("{}{}{report}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_ne!(out.status.code(), Some(0), "no server answers: {text}");
    text
}

/// Asserts that neither output nor report of a command has a secret, as text and as JSON.
fn tells_no_secret(words: &[&str], env: &[(&str, &str)]) {
    let f = Folder::new();
    f.write("x.jsonl", "{\"id\":1,\"seq\":1}\n");
    for json in [None, Some("--json")] {
        let words: Vec<&str> = words.iter().copied().chain(json).chain(["--report", "report.json"]).collect();
        let text = output(&f, &words, env);
        for secret in [SECRET, "wJalrXUtnFEMI", "FwoGZXIvYXdz", "IOSFODNN7EXAMPLE"] {
            assert!(!text.contains(secret), "{words:?} {env:?}: {text}");
        }
    }
}

#[test]
fn passwords_of_endpoints_and_proxies_are_masked() {
    const AT_NO_SERVER: &str = "http://user:S3CRETpw@127.0.0.1:9";
    let show = ["show", "s3://b/x"];
    let endpoints = [
        AT_NO_SERVER,
        "http://S3CRETpw@127.0.0.1:9",
        "http://user:a/S3CRETpw@127.0.0.1:9",
        "http://127.0.0.1:9/?token=S3CRETpw",
    ];
    let options = [
        ("AWS_ENDPOINT_URL", AT_NO_SERVER),
        ("AWS_ENDPOINT_URL_S3", AT_NO_SERVER),
        ("HTTPS_PROXY", AT_NO_SERVER),
        ("https_proxy", AT_NO_SERVER),
        ("ALL_PROXY", AT_NO_SERVER),
        ("HTTPS_PROXY", "user:S3CRETpw@127.0.0.1:9"),
        ("https_proxy", "user:S3CRETpw@127.0.0.1:9"),
        ("ALL_PROXY", "user:S3CRETpw@127.0.0.1:9"),
    ];
    // Each command waits for its last attempt to connect, so all of them run at once.
    std::thread::scope(|scope| {
        for endpoint in endpoints {
            scope.spawn(move || tells_no_secret(&[&show[..], &["--endpoint-url", endpoint]].concat(), &[]));
        }
        let purge = ["purge", "s3://b/x", "--older-than", "1d", "--endpoint-url", AT_NO_SERVER];
        scope.spawn(move || tells_no_secret(&purge, &[]));
        scope.spawn(|| tells_no_secret(&["doctor", "s3://b/x", "--endpoint-url", AT_NO_SERVER], &[]));
        for option in options {
            scope.spawn(move || tells_no_secret(&show, &[option]));
        }
    });
}

#[test]
fn secrets_in_paths_and_urls_are_masked() {
    let merge = |target: &'static str, changes: &'static str| {
        ["merge", "--target", target, "--format", "rows", "--key", "id", "--order", "seq", "--changes", changes]
    };
    for url in [
        "ftp://user:S3CRETpw@host/x",
        "https://host/x?X-Amz-Signature=S3CRETpw&y=1",
        "https://account.blob.core.windows.net/c?sv=1&sig=S3CRETpw",
    ] {
        tells_no_secret(&["show", url], &[]);
        tells_no_secret(&merge("lake/t", url), &[]);
        tells_no_secret(&merge(url, "x.jsonl"), &[]);
        tells_no_secret(&["history", "lake/none", "--state", url], &[]);
        tells_no_secret(&["show", "lake/none", "--file-keys", url], &[]);
    }
    tells_no_secret(&["show", "s3://user:S3CRETpw@b/x", "--endpoint-url", "http://127.0.0.1:9"], &[]);
    // Usage errors quote the command line.
    tells_no_secret(&["show", "lake/t", "http://user:S3CRETpw@host"], &[]);
    tells_no_secret(&["show", "lake/t", "--limit", "http://user:S3CRETpw@host"], &[]);
    tells_no_secret(&["show", "lake/t", "--no-such=http://user:S3CRETpw@host"], &[]);
}

#[test]
fn help_does_not_show_values_of_the_environment() {
    let f = Folder::new();
    for words in [
        &["--help"][..],
        &["run", "--help"],
        &["merge", "--help"],
        &["quarantine", "show", "--help"],
        &["pii", "detokenize", "--help"],
    ] {
        let env = ["BISCUIT_FILE_KEYS", "BISCUIT_RUN_ID", "USER"].map(|name| (name, SECRET));
        let out = Command::new(env!("CARGO_BIN_EXE_biscuit")).args(words).current_dir(f.path()).envs(env).output();
        let text = String::from_utf8(out.expect("the binary starts").stdout).expect("the text is UTF-8");
        assert!(text.contains("Usage") && !text.contains(SECRET), "{words:?}: {text}");
    }
}
