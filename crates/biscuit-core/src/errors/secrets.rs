//! Masking of secrets in text that leaves the process: error messages, logs and reports.
//!
//! Masking is a heuristic over text, because a secret can arrive in the message of any library. Each rule adds spans
//! of bytes to mask, and [`mask_secrets`] joins the spans of all rules.

use std::borrow::Cow;
use std::sync::RwLock;

/// Text that replaces a secret.
const MASK: &str = "***";
/// Minimum length of a remembered secret in bytes. Shorter texts occur in ordinary words, which masking would make
/// unreadable.
const SHORTEST: usize = 6;

/// Remembered secrets, longest first. There is one list for the process, because text leaves the process in many
/// places.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Remembers a secret, such as a password, a token or a secret key, so that [`mask_secrets`] masks it wherever it
/// occurs. A secret of fewer than six bytes is not remembered.
///
/// ```
/// use biscuit_core::{hide_secret, mask_secrets};
///
/// hide_secret("correct horse");
/// assert_eq!(mask_secrets("the answer was: correct horse"), "the answer was: ***");
/// ```
pub fn hide_secret(secret: &str) {
    if secret.len() < SHORTEST {
        return;
    }
    // A panic of another thread leaves the list intact, so the poison flag is ignored.
    let mut known = KNOWN.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !known.iter().any(|s| s == secret) {
        known.push(secret.to_owned());
        known.sort_by_key(|s| std::cmp::Reverse(s.len()));
    }
}

/// Remembers the password of a URL (`http://user:password@proxy`), both as written and with its percent-encoding
/// decoded.
pub fn hide_password_of(url: &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let Some(password) = rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, p)| p) else {
        return;
    };
    hide_secret(password);
    hide_secret(&percent_decoded(password));
}

/// Masks the secrets in a text: users and passwords in URLs, signatures and tokens in queries, `Authorization`
/// headers and session tokens, AWS keys, and the secrets that [`hide_secret`] remembers.
///
/// ```
/// use biscuit_core::mask_secrets;
///
/// assert_eq!(mask_secrets("cannot reach http://me:pw@host:9000/x"), "cannot reach http://***@host:9000/x");
/// assert_eq!(
///     mask_secrets("https://b.s3.amazonaws.com/k?X-Amz-Signature=0a1b&x=1"),
///     "https://b.s3.amazonaws.com/k?X-Amz-Signature=***&x=1"
/// );
/// ```
pub fn mask_secrets(text: &str) -> Cow<'_, str> {
    let mut spans = Vec::new();
    find_remembered(text, &mut spans);
    find_users(text, &mut spans);
    find_named_values(text, &mut spans);
    find_scheme_credentials(text, &mut spans);
    access_keys(text, &mut spans);
    if spans.is_empty() {
        return text.into();
    }
    // The rules may find overlapping spans. In sorted order, a span that begins inside of the previous ones is not
    // written again; it only moves the position up to which text is skipped.
    spans.sort_unstable();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for (from, to) in spans {
        if from >= at {
            out.push_str(&text[at..from]);
            out.push_str(MASK);
        }
        at = at.max(to);
    }
    out.push_str(&text[at..]);
    out.into()
}

/// Byte ranges to mask, each as begin and end, in any order; they may overlap.
type SecretSpans = Vec<(usize, usize)>;

/// Finds the remembered secrets.
fn find_remembered(text: &str, spans: &mut SecretSpans) {
    let known = KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    for secret in known.iter() {
        spans.extend(text.match_indices(secret.as_str()).map(|(at, found)| (at, at + found.len())));
    }
}

/// Finds users and passwords: the text between `://` and `@`.
fn find_users(text: &str, spans: &mut SecretSpans) {
    // End of the text that may be a URL, and the position of its last `@`. Both are computed once for a URL and
    // reused for URLs inside of it, so that a text with many `://` takes linear time.
    let (mut end, mut last) = (0, None);
    for (at, mark) in text.match_indices("://") {
        let from = at + mark.len();
        if from > end {
            end = from + find_end(&text[from..], |c| c.is_whitespace() || c.is_control() || "\"`<>|^".contains(c));
            last = text[from..end].rfind('@').map(|at| from + at);
        }
        let authority = &text[from..end];
        let authority = &authority[..find_end(authority, |c| matches!(c, '/' | '?' | '#' | '\\'))];
        let user = match (authority.rfind('@'), authority.split_once(':')) {
            (Some(at), _) => Some(from + at),
            // A password that is not percent-encoded may contain `/`, which ends the authority too early:
            // `user:a/b@host`. A port consists of digits only, so text after the colon that is not a number is taken
            // as the start of a password.
            (None, Some((host, port))) if !host.starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit()) => last,
            _ => None,
        };
        spans.extend(user.filter(|at| *at > from).map(|at| (from, at)));
    }
}

/// Finds values whose names are secret: `name=value` in queries, `name: value` and `"name":"value"` in headers and
/// settings, and `<name>value</name>` in XML.
fn find_named_values(text: &str, spans: &mut SecretSpans) {
    let bytes = text.as_bytes();
    // From each `=`, `:` or `>` the name is read backwards: first quotation marks and spaces, then the name itself.
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let before = |end: usize, is: &dyn Fn(u8) -> bool| end - bytes[..end].iter().rev().take_while(|b| is(**b)).count();
    let mut masked = 0;
    for (at, mark) in text.match_indices(['=', ':', '>']) {
        if at < masked {
            continue;
        }
        let end = before(at, &|b| matches!(b, b'"' | b'\'' | b'\\' | b' '));
        let begin = before(end, &is_name);
        let name: String = text[begin..end].chars().filter(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        let after = |these: &[u8]| begin > 0 && these.contains(&bytes[begin - 1]);
        // A column may have the name `password`. If a colon follows it, it is a setting only if the name is in
        // quotes.
        let assigned = mark == "=" || text[end..at].contains(['"', '\'']);
        let secret = match mark {
            ">" => after(b"<") && is_setting(&name),
            _ if is_setting(&name) => true,
            _ if assigned && (name.ends_with("password") || name.ends_with("passwd")) => true,
            _ => mark == "=" && after(b"?&") && is_parameter(&name),
        };
        if !secret {
            continue;
        }
        // Characters between a name and its value, including those that `Debug` writes (`Some("…")`).
        let value = text[at + 1..].trim_start_matches([' ', '"', '\'', '\\']);
        let value = value.strip_prefix("Some(").unwrap_or(value).trim_start_matches(['"', '\\']);
        let whole_line = name.ends_with("authorization");
        // The value of an `Authorization` header contains spaces and commas, and is masked up to the end of its line.
        let length = find_end(value, |c| match c {
            '"' | '\'' | '\\' | '\n' | '<' | '`' | ')' | '}' => true,
            '&' | '#' | ',' | ';' | ' ' | '\t' | '\r' => !whole_line,
            _ => false,
        });
        // In a report, a secret name may have an object or a list as its value, which is not a secret.
        if length > 0 && &value[..length] != "None" && !value.starts_with(['{', '[']) {
            let from = text.len() - value.len();
            masked = from + length;
            spans.push((from, masked));
        }
    }
}

/// Returns whether the values of a header or setting are secret in every context. `name` has only lower-case letters
/// and digits.
fn is_setting(name: &str) -> bool {
    [
        "authorization",
        "securitytoken",
        "sessiontoken",
        "secretaccesskey",
        "secretkey",
        "accountkey",
        "clientsecret",
        "sharedaccesssignature",
        "amzsignature",
        "amzcredential",
        "token0",
        "setcookie",
    ]
    .iter()
    .any(|secret| name.ends_with(secret))
}

/// Returns whether the values of a URL parameter are secret. These names are ordinary words outside of a query.
fn is_parameter(name: &str) -> bool {
    let parts =
        ["token", "secret", "passw", "pwd", "signature", "credential", "auth", "apikey", "accesskey", "sharedkey"];
    parts.iter().any(|part| name.contains(part)) || matches!(name, "sig" | "sas" | "key" | "pass" | "code")
}

/// Finds credentials after `Bearer` and `Basic`, and the parts of an AWS signature of version 4.
fn find_scheme_credentials(text: &str, spans: &mut SecretSpans) {
    for scheme in ["Bearer ", "bearer ", "Basic ", "AWS4-HMAC-SHA256 "] {
        let mut masked = 0;
        for (at, _) in text.match_indices(scheme) {
            let from = at + scheme.len();
            if from < masked {
                continue;
            }
            let one_line = scheme.starts_with("AWS4");
            let length = find_end(&text[from..], |c| "\"'\\\n<`)}".contains(c) || (!one_line && c.is_whitespace()));
            // A shorter text is a word of a sentence, as in `Basic use`.
            if length >= 8 {
                masked = from + length;
                spans.push((from, masked));
            }
        }
    }
}

/// Finds access key ids of AWS: four capitals that name the kind of key, and sixteen more characters. The kind stays
/// readable.
fn access_keys(text: &str, spans: &mut SecretSpans) {
    for kind in ["AKIA", "ASIA"] {
        for (at, _) in text.match_indices(kind) {
            let length = find_end(&text[at..], |c| !(c.is_ascii_uppercase() || c.is_ascii_digit()));
            let begins = at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric();
            if length == 20 && begins {
                spans.push((at + kind.len(), at + length));
            }
        }
    }
}

/// Returns the position of the first character that satisfies `stop`, or the length of the text.
fn find_end(text: &str, stop: impl Fn(char) -> bool) -> usize {
    text.find(stop).unwrap_or(text.len())
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let decoded = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(b'%'));
        rest = &rest[at + if decoded.is_some() { 3 } else { 1 }..];
    }
    out.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "S3CRETpw";

    #[test]
    fn secrets_of_all_forms_are_masked() {
        let forms = [
            "http://user:S3CRETpw@127.0.0.1:9",
            "s3://S3CRETpw@bucket/key",
            "https://user:a/S3CRETpw@host/path",
            "(`http://user:S3CRETpw@host`)",
            "http://user:%53@S3CRETpw@host/",
            "https://h/k?a=b&X-Amz-Signature=S3CRETpw&c=d",
            "https://h/k?X-Amz-Credential=S3CRETpw%2F20240101&x=1",
            "https://h/k?x-amz-security-token=S3CRETpw",
            "https://account.blob.core.windows.net/c?sv=2020&sig=S3CRETpw%3D",
            "https://h/?token=S3CRETpw and more",
            "https://h/?access_token=S3CRETpw#x",
            "https://h/?api_key=S3CRETpw",
            "Authorization: AWS4-HMAC-SHA256 Credential=S3CRETpw/x/s3, SignedHeaders=host, Signature=S3CRETpw",
            "{\"authorization\":\"Bearer S3CRETpw\"}",
            "\"proxy-authorization\": \"Basic S3CRETpw\"",
            "\\\"x-amz-security-token\\\": \\\"S3CRETpw\\\"",
            "aws_secret_access_key = S3CRETpw",
            "SecretAccessKey: \"S3CRETpw\"",
            "<Token-0>S3CRETpw</Token-0>",
            "password='S3CRETpw'",
            "sent Bearer S3CRETpw to it",
        ];
        for form in forms {
            let masked = mask_secrets(form);
            assert!(!masked.contains(SECRET) && masked.contains(MASK), "{form}: {masked}");
        }
        assert_eq!(mask_secrets("key AKIAIOSFODNN7EXAMPLE is unknown"), "key AKIA*** is unknown");
    }

    #[test]
    fn ordinary_text_is_not_masked() {
        for text in [
            "cannot read `s3://bucket/day=2024-01-01/a@b.parquet`",
            "http://127.0.0.1:9000/bucket/a@b",
            "http://[::1]:9000/a@b",
            "https://host/path?page=2&limit=3",
            "lost s.password: {\"nulls\":3}",
            "column password: a value is missing",
            "column `token`: a value is not a number (a.jsonl, row 7)",
            "`--set` takes PATH=VALUE: key=value",
            "Basic use: see the README",
            "token=1 of 7",
            "2024-01-01T00:00:00Z merging: done",
        ] {
            assert_eq!(mask_secrets(text), text);
        }
    }

    #[test]
    fn remembered_secret_is_masked_everywhere() {
        hide_password_of("http://proxy-user:kn%40wnSecret@proxy:3128");
        hide_secret("short");
        assert_eq!(mask_secrets("password: Some(\"kn@wnSecret\"), kn%40wnSecret!"), "password: Some(\"***\"), ***!");
        assert_eq!(mask_secrets("short"), "short");
    }
}
