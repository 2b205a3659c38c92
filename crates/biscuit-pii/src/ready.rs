use std::sync::Arc;

use biscuit_core::{Error, Result};

use crate::action::Action;
use crate::detector::usual_detectors;
use crate::encrypt::cells::Cells;
use crate::encrypt::form::Form;
use crate::encrypt::messages::Messages;
use crate::encrypt::subjects::Subjects;
use crate::entity::Entity;
use crate::find::Phone;
use crate::hash_key::HashKey;
use crate::keys::cache::{KeyCache, Limits};
use crate::keys::provider::{KeyContext, KeyProvider};
use crate::means::Means;
use crate::policy::{Encryption, KeyUse, Policy, Redaction, Replacement, TokenKind, Tokens, Treatment};
use crate::redact::Redactor;
use crate::tokens::tokenizer::Tokenizer;

/// A treatment with all that it takes.
#[derive(Debug)]
pub(crate) enum Ready {
    Keep,
    Remove,
    Redact(Redactor),
    Mask {
        first: usize,
        last: usize,
    },
    Hash(Box<HashKey>),
    Cells(Cells),
    OfSubject(Cells),
    Messages(Messages),
    /// Whoever writes the file encrypts it.
    InFiles,
    Tokenize(Tokenizer),
}

/// Makes the treatment of a column ready. `name` is the namespace where none is given.
pub(crate) fn ready(
    treatment: &Treatment,
    (table, path, name): (&str, &str, &str),
    policy: &Policy,
    means: &Means,
) -> Result<Ready> {
    Ok(match treatment {
        Treatment::Keep => Ready::Keep,
        Treatment::Remove => Ready::Remove,
        Treatment::Mask => Ready::Mask { first: 0, last: 0 },
        Treatment::Partial { first, last } => Ready::Mask { first: *first, last: *last },
        Treatment::Redact(how) => Ready::Redact(redactor(how, path, means)?),
        Treatment::Hash(how) => {
            let (roots, namespace) = (means.roots(path)?, how.namespace.as_deref().unwrap_or(name));
            Ready::Hash(Box::new(HashKey::of_version(&roots, how.version.unwrap_or(roots.current()), namespace)?))
        }
        Treatment::Tokenize(how) => Ready::Tokenize(tokenizer(how, path, name, means)?),
        Treatment::Encrypt(how) => encryption(how, table, path, policy, means)?,
    })
}

fn encryption(how: &Encryption, table: &str, path: &str, policy: &Policy, means: &Means) -> Result<Ready> {
    let nested = path.contains('.');
    let form = if nested { Form::Text } else { how.form };
    Ok(match how.key {
        KeyUse::Column => Ready::Cells(Cells::new(means.roots(path)?, table).with_form(form)),
        KeyUse::Subject => {
            if policy.subject.is_none() {
                let message = format!(
                    "column `{path}` has keys of subjects, and [pii] does not say which column is the `subject`"
                );
                return Err(Error::usage("NoSubject", message).with_column(path));
            }
            let subjects = Arc::new(Subjects::new(means.store(path)?, means.roots(path)?));
            let cells = Cells::new(means.roots(path)?, table).with_form(form).with_subjects(subjects);
            Ready::OfSubject(cells)
        }
        KeyUse::File => {
            if how.form != Form::default() {
                let message = format!("column `{path}` is encrypted inside of files, where values have no `form`");
                return Err(Error::usage("InvalidPolicy", message).with_column(path));
            }
            provider(path, means)?;
            Ready::InFiles
        }
        KeyUse::Message => {
            let provider = provider(path, means)?;
            let context = KeyContext::from([("table".to_owned(), table.to_owned())]);
            let messages = Messages::new(KeyCache::new(provider, Limits::default()), context).with_form(form);
            Ready::Messages(messages)
        }
    })
}

fn provider(path: &str, means: &Means) -> Result<Arc<dyn KeyProvider>> {
    means.provider.clone().ok_or_else(|| {
        let message = format!("column `{path}` needs data keys, and there is no key provider for them");
        Error::usage("NoProvider", message).with_column(path)
    })
}

fn tokenizer(how: &Tokens, path: &str, name: &str, means: &Means) -> Result<Tokenizer> {
    let (roots, namespace) = (means.roots(path)?, how.namespace.as_deref().unwrap_or(name));
    let tokenizer = match how.kind {
        TokenKind::Random => Tokenizer::random(roots, namespace, means.store(path)?)?,
        TokenKind::Keyed => match means.store.clone() {
            Some(store) => Tokenizer::keyed_in(roots, namespace, store)?,
            None => Tokenizer::keyed(roots, namespace)?,
        },
        TokenKind::Siv => Tokenizer::siv(roots, namespace)?,
        TokenKind::Ff1 => Tokenizer::ff1(roots, namespace, how.alphabet)?,
    };
    let tokenizer = match how.version {
        Some(version) => tokenizer.with_version(version)?,
        None => tokenizer,
    };
    Ok(tokenizer.with_normalization(how.normalize.clone()))
}

fn redactor(how: &Redaction, path: &str, means: &Means) -> Result<Redactor> {
    let mut detectors = usual_detectors();
    if !how.phone_regions.is_empty() {
        detectors.push(Arc::new(Phone::new(how.phone_regions.iter().map(String::as_str))?));
    }
    detectors.extend(means.detectors.iter().cloned());
    let action = |entity: Option<&Entity>, replacement: &Replacement| {
        Ok(match replacement {
            Replacement::Type => Action::Type,
            Replacement::Mask => Action::Mask,
            Replacement::Partial { first, last } => Action::partial(*first, *last),
            Replacement::Hash => Action::hash(HashKey::of(&means.roots(path)?, "redacted")?),
            Replacement::Keep => Action::Keep,
            Replacement::Tokenize(tokens) => {
                let name = entity.map_or("redacted", Entity::name);
                Action::tokenize(tokenizer(tokens, path, name, means)?)
            }
        })
    };
    let mut redactor = Redactor::new(detectors).with_otherwise(action(None, &how.replace)?);
    if let Some(least) = how.least {
        redactor = redactor.with_least(least);
    }
    for (entity, replacement) in &how.entities {
        redactor = redactor.with_action(entity.clone(), action(Some(entity), replacement)?);
    }
    Ok(redactor)
}
