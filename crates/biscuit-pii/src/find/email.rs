use std::sync::LazyLock;

use regex::Regex;

use crate::entity::EntityType;
use crate::find::{after, detects_by, matches_from, regex};
use crate::hit::{Likelihood, PiiHit};

/// E-mail addresses (RFC 5321, names of letters, digits and usual signs; RFC 6531, with letters of any script), of a host with a top-level domain.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmailDetector;

detects_by!(EmailDetector, |_, text, _| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        // RFC 5321 has more signs; in texts they are those of what is around an address.
        let part = r"[\p{L}\p{M}\p{N}_%+'~-]+";
        let name = format!(r"{part}(?:\.{part})*");
        let label = r"[\p{L}\p{M}\p{N}](?:[\p{L}\p{M}\p{N}-]{0,61}[\p{L}\p{M}\p{N}])?";
        regex(&format!(r"{name}@(?:{label}\.)+(?:xn--[A-Za-z0-9-]{{0,58}}[A-Za-z0-9]|[\p{{L}}\p{{M}}]{{2,63}})"))
    });
    matches_from(&FORM, text, |mut range| {
        // A quote in front is hardly ever a part of a name.
        let name = &text[range.clone()];
        range.start += name.len() - name.trim_start_matches('\'').len();
        let goes_on = after(text, range.end).is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
        let empty = text[range.clone()].starts_with('@');
        if goes_on || empty {
            // Whatever begins in the same name has the same host, and ends where this does.
            return Err(range.start + text[range].find('@').map_or(1, |at| at + 1));
        }
        Ok(PiiHit::new(EntityType::EMAIL_ADDRESS, range, Likelihood::Certain))
    })
});
