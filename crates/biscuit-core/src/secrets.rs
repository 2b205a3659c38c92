use std::borrow::Cow;
use std::sync::RwLock;

/// What stands for a secret.
const MASK: &str = "***";
/// Shorter texts are in ordinary words, which a mask would make unreadable.
const SHORTEST: usize = 6;

/// Secrets that are known as such, longest first. One for the process, since text leaves it in many places.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Remembers a secret, so that [`mask_secrets`] masks it wherever it is: a password, a token, a secret key. One of fewer than six
/// characters is not remembered.
pub fn hide_secret(secret: &str) {
    if secret.len() < SHORTEST {
        return;
    }
    let mut known = KNOWN.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !known.iter().any(|s| s == secret) {
        known.push(secret.to_owned());
        known.sort_by_key(|s| std::cmp::Reverse(s.len()));
    }
}

/// Remembers the password of a URL (`http://user:password@proxy`), as it is written and decoded.
pub fn hide_password_of(url: &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let Some(password) = rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, p)| p) else {
        return;
    };
    hide_secret(password);
    hide_secret(&percent_decoded(password));
}

/// The text with its secrets masked: users and passwords in URLs, signatures and tokens in their queries, `Authorization` and session
/// tokens in headers, AWS keys, and what [`hide_secret`] was told.
///
/// ```
/// use biscuit_core::mask_secrets;
///
/// assert_eq!(mask_secrets("cannot reach http://me:pw@host:9000/x"), "cannot reach http://***@host:9000/x");
/// assert_eq!(mask_secrets("https://b.s3.amazonaws.com/k?X-Amz-Signature=0a1b&x=1"), "https://b.s3.amazonaws.com/k?X-Amz-Signature=***&x=1");
/// ```
pub fn mask_secrets(text: &str) -> Cow<'_, str> {
    let mut spans = Vec::new();
    known(text, &mut spans);
    users(text, &mut spans);
    named(text, &mut spans);
    schemes(text, &mut spans);
    access_keys(text, &mut spans);
    if spans.is_empty() {
        return text.into();
    }
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

type SecretSpans = Vec<(usize, usize)>;

fn known(text: &str, spans: &mut SecretSpans) {
    let known = KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    for secret in known.iter() {
        spans.extend(text.match_indices(secret.as_str()).map(|(at, found)| (at, at + found.len())));
    }
}

/// Users and passwords between `://` and `@`.
fn users(text: &str, spans: &mut SecretSpans) {
    // Where the text that may be a URL ends, and its last `@`: for a URL in another one they are the same.
    let (mut end, mut last) = (0, None);
    for (at, mark) in text.match_indices("://") {
        let from = at + mark.len();
        if from > end {
            end = from + ends(&text[from..], |c| c.is_whitespace() || c.is_control() || "\"`<>|^".contains(c));
            last = text[from..end].rfind('@').map(|at| from + at);
        }
        let authority = &text[from..end];
        let authority = &authority[..ends(authority, |c| matches!(c, '/' | '?' | '#' | '\\'))];
        let user = match (authority.rfind('@'), authority.split_once(':')) {
            (Some(at), _) => Some(from + at),
            // A password that is not percent-encoded may have a `/`. A port has digits only.
            (None, Some((host, port))) if !host.starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit()) => last,
            _ => None,
        };
        spans.extend(user.filter(|at| *at > from).map(|at| (from, at)));
    }
}

/// Values of names that say that they are secret: `name=value` in queries, `name: value` and `"name":"value"` in headers and settings.
fn named(text: &str, spans: &mut SecretSpans) {
    let bytes = text.as_bytes();
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
        // A column may be called `password`: with a colon after it only a name in quotes is a setting.
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
        // What stands between a name and its value, also as `Debug` writes it.
        let value = text[at + 1..].trim_start_matches([' ', '"', '\'', '\\']);
        let value = value.strip_prefix("Some(").unwrap_or(value).trim_start_matches(['"', '\\']);
        let whole_line = name.ends_with("authorization");
        let length = ends(value, |c| match c {
            '"' | '\'' | '\\' | '\n' | '<' | '`' | ')' | '}' => true,
            '&' | '#' | ',' | ';' | ' ' | '\t' | '\r' => !whole_line,
            _ => false,
        });
        // What a name stands for in a report is no secret.
        if length > 0 && &value[..length] != "None" && !value.starts_with(['{', '[']) {
            let from = text.len() - value.len();
            masked = from + length;
            spans.push((from, masked));
        }
    }
}

/// Names of headers and settings, letters and digits of them, whose values are secret wherever they are.
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

/// Names of parameters of a URL whose values are secret.
fn is_parameter(name: &str) -> bool {
    let parts =
        ["token", "secret", "passw", "pwd", "signature", "credential", "auth", "apikey", "accesskey", "sharedkey"];
    parts.iter().any(|part| name.contains(part)) || matches!(name, "sig" | "sas" | "key" | "pass" | "code")
}

/// What follows `Bearer` and `Basic`, and the parts of a signature of AWS.
fn schemes(text: &str, spans: &mut SecretSpans) {
    for scheme in ["Bearer ", "bearer ", "Basic ", "AWS4-HMAC-SHA256 "] {
        let mut masked = 0;
        for (at, _) in text.match_indices(scheme) {
            let from = at + scheme.len();
            if from < masked {
                continue;
            }
            let one_line = scheme.starts_with("AWS4");
            let length = ends(&text[from..], |c| "\"'\\\n<`)}".contains(c) || (!one_line && c.is_whitespace()));
            // Shorter ones are words of a sentence.
            if length >= 8 {
                masked = from + length;
                spans.push((from, masked));
            }
        }
    }
}

/// Access key ids of AWS: four capitals that say of what kind they are, and sixteen more.
fn access_keys(text: &str, spans: &mut SecretSpans) {
    for kind in ["AKIA", "ASIA"] {
        for (at, _) in text.match_indices(kind) {
            let length = ends(&text[at..], |c| !(c.is_ascii_uppercase() || c.is_ascii_digit()));
            let begins = at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric();
            if length == 20 && begins {
                spans.push((at + kind.len(), at + length));
            }
        }
    }
}

fn ends(text: &str, stop: impl Fn(char) -> bool) -> usize {
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
    fn secrets_in_all_their_forms_are_masked() {
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
    fn ordinary_text_stays_as_it_is() {
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
    fn a_secret_that_is_known_is_masked_wherever_it_is() {
        hide_password_of("http://proxy-user:kn%40wnSecret@proxy:3128");
        hide_secret("short");
        assert_eq!(mask_secrets("password: Some(\"kn@wnSecret\"), kn%40wnSecret!"), "password: Some(\"***\"), ***!");
        assert_eq!(mask_secrets("short"), "short");
    }
}
