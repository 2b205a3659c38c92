//! Compiles the treatments of a policy: resolves keys, store, provider and detectors once, before the first row is
//! read, so that a policy with a missing part fails early.

use std::sync::Arc;

use biscuit_core::{Error, Result};

use crate::codes;
use crate::detect::default_detectors::default_detectors;
use crate::detect::entity::EntityType;
use crate::encrypt::cells::ValueEncryptor;
use crate::encrypt::form::EncryptedForm;
use crate::encrypt::messages::EnvelopeEncryptor;
use crate::encrypt::subjects::SubjectKeys;
use crate::find::PhoneDetector;
use crate::hash_key::HashKey;
use crate::keys::cache::{KeyCache, KeyLimits};
use crate::keys::provider::{KeyContext, KeyProvider};
use crate::policy::{
    ColumnTreatment, HitReplacement, KeyUse, Policy, RedactionOptions, TokenKind, TokenOptions, ValueEncryption,
};
use crate::protect::action::HitAction;
use crate::protect::means::PiiContext;
use crate::protect::redact::Redactor;
use crate::tokens::tokenizer::Tokenizer;

/// A treatment with the keys, stores and detectors that it needs.
#[derive(Debug)]
pub(crate) enum CompiledTreatment {
    Keep,
    Remove,
    Redact(Redactor),
    Mask {
        first: usize,
        last: usize,
    },
    Hash(Box<HashKey>),
    Cells(ValueEncryptor),
    OfSubject(ValueEncryptor),
    Messages(EnvelopeEncryptor),
    /// Left to the writer of the file, which encrypts the column.
    InFiles,
    Tokenize(Tokenizer),
}

/// Compiles the treatment of the column `path` of a table. `name` is the namespace of the treatment if it names none.
pub(crate) fn compile_treatment(
    treatment: &ColumnTreatment,
    table: &str,
    path: &str,
    name: &str,
    policy: &Policy,
    means: &PiiContext,
) -> Result<CompiledTreatment> {
    Ok(match treatment {
        ColumnTreatment::Keep => CompiledTreatment::Keep,
        ColumnTreatment::Remove => CompiledTreatment::Remove,
        ColumnTreatment::Mask => CompiledTreatment::Mask { first: 0, last: 0 },
        ColumnTreatment::Partial { first, last } => CompiledTreatment::Mask { first: *first, last: *last },
        ColumnTreatment::Redact(how) => CompiledTreatment::Redact(build_redactor(how, path, means)?),
        ColumnTreatment::Hash(how) => {
            let (roots, namespace) = (means.load_roots(path)?, how.namespace.as_deref().unwrap_or(name));
            CompiledTreatment::Hash(Box::new(HashKey::of_version(
                &roots,
                how.version.unwrap_or(roots.current()),
                namespace,
            )?))
        }
        ColumnTreatment::Tokenize(how) => CompiledTreatment::Tokenize(build_tokenizer(how, path, name, means)?),
        ColumnTreatment::Encrypt(how) => compile_encryption(how, table, path, policy, means)?,
    })
}

fn compile_encryption(
    how: &ValueEncryption,
    table: &str,
    path: &str,
    policy: &Policy,
    means: &PiiContext,
) -> Result<CompiledTreatment> {
    let nested = path.contains('.');
    // Values inside of nested columns are always stored as text, whatever `form` the policy has.
    let form = if nested { EncryptedForm::Text } else { how.form };

    Ok(match how.key {
        KeyUse::Column => CompiledTreatment::Cells(ValueEncryptor::new(means.load_roots(path)?, table).with_form(form)),
        KeyUse::Subject => {
            if policy.subject.is_none() {
                let message = format!(
                    "column `{path}` is encrypted with keys of subjects; set `subject` in [pii] to the \
                    column that identifies them"
                );
                return Err(Error::new(codes::NO_SUBJECT, message).with_column(path));
            }
            let subjects = Arc::new(SubjectKeys::new(means.open_store(path)?, means.load_roots(path)?));
            let cells = ValueEncryptor::new(means.load_roots(path)?, table).with_form(form).with_subjects(subjects);
            CompiledTreatment::OfSubject(cells)
        }
        KeyUse::File => {
            if how.form != EncryptedForm::default() {
                let message =
                    format!("column `{path}` is encrypted inside of files, where `form` has no effect; remove `form`");
                return Err(Error::new(codes::INVALID_POLICY, message).with_column(path));
            }
            build_provider(path, means)?;
            CompiledTreatment::InFiles
        }
        KeyUse::Message => {
            let provider = build_provider(path, means)?;
            let context = KeyContext::from([("table".to_owned(), table.to_owned())]);
            let messages =
                EnvelopeEncryptor::new(KeyCache::new(provider, KeyLimits::default()), context).with_form(form);
            CompiledTreatment::Messages(messages)
        }
    })
}

fn build_provider(path: &str, means: &PiiContext) -> Result<Arc<dyn KeyProvider>> {
    means.provider.clone().ok_or_else(|| {
        let message =
            format!("column `{path}` needs data keys, and there is no key provider; set `keys` in [pii] to a key file");
        Error::new(codes::NO_KEYS, message).with_column(path)
    })
}

fn build_tokenizer(how: &TokenOptions, path: &str, name: &str, means: &PiiContext) -> Result<Tokenizer> {
    let (roots, namespace) = (means.load_roots(path)?, how.namespace.as_deref().unwrap_or(name));
    let tokenizer = match how.kind {
        TokenKind::Random => Tokenizer::random(roots, namespace, means.open_store(path)?)?,
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

fn build_redactor(how: &RedactionOptions, path: &str, means: &PiiContext) -> Result<Redactor> {
    let mut detectors = default_detectors();
    if !how.phone_regions.is_empty() {
        detectors.push(Arc::new(PhoneDetector::new(how.phone_regions.iter().map(String::as_str))?));
    }
    detectors.extend(means.detectors.iter().cloned());
    let action = |entity: Option<&EntityType>, replacement: &HitReplacement| {
        Ok(match replacement {
            HitReplacement::Type => HitAction::Type,
            HitReplacement::Mask => HitAction::Mask,
            HitReplacement::Partial { first, last } => HitAction::partial(*first, *last),
            HitReplacement::Hash => HitAction::hash(HashKey::from_roots(&means.load_roots(path)?, "redacted")?),
            HitReplacement::Keep => HitAction::Keep,
            HitReplacement::Tokenize(tokens) => {
                let name = entity.map_or("redacted", EntityType::name);
                HitAction::tokenize(build_tokenizer(tokens, path, name, means)?)
            }
        })
    };
    let mut redactor = Redactor::new(detectors).with_otherwise(action(None, &how.replace)?);
    if let Some(min_likelihood) = how.min_likelihood {
        redactor = redactor.with_min_likelihood(min_likelihood);
    }
    for (entity, replacement) in &how.entities {
        redactor = redactor.with_action(entity.clone(), action(Some(entity), replacement)?);
    }
    Ok(redactor)
}
