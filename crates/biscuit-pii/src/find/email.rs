use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{character_after, compile_regex, detects_by, matches_from};

/// Detects e-mail addresses (RFC 5321, and RFC 6531 with letters of any script) at a host with a top-level domain.
/// The local part consists of letters, digits and common signs.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmailDetector;

detects_by!(EmailDetector, |_, text, _| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        // RFC 5321 allows more signs, but in running text they usually belong to what surrounds the address.
        let part = r"[\p{L}\p{M}\p{N}_%+'~-]+";
        let name = format!(r"{part}(?:\.{part})*");
        let label = r"[\p{L}\p{M}\p{N}](?:[\p{L}\p{M}\p{N}-]{0,61}[\p{L}\p{M}\p{N}])?";
        compile_regex(&format!(
            r"{name}@(?:{label}\.)+(?:xn--[A-Za-z0-9-]{{0,58}}[A-Za-z0-9]|[\p{{L}}\p{{M}}]{{2,63}})"
        ))
    });
    matches_from(&FORM, text, |mut range| {
        // A quote at the beginning usually surrounds the address.
        let name = &text[range.clone()];
        range.start += name.len() - name.trim_start_matches('\'').len();
        let goes_on = character_after(text, range.end).is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
        let empty = text[range.clone()].starts_with('@');
        if goes_on || empty {
            // A match that begins later in the same local part has the same host and the same end, so it is rejected
            // too.
            return Err(range.start + text[range].find('@').map_or(1, |at| at + 1));
        }
        Ok(PiiHit::new(EntityType::EMAIL_ADDRESS, range, Likelihood::Certain))
    })
});
