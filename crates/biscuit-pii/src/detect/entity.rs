use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of personal data. The name is the one that Presidio or Comprehend uses, if one of them has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityType(Cow<'static, str>);

macro_rules! entities {
    ($($name:ident: $doc:literal,)*) => {
        impl EntityType {
            $(#[doc = $doc] pub const $name: Self = Self(Cow::Borrowed(stringify!($name)));)*
        }
    };
}

entities! {
    AWS_ACCESS_KEY: "Id of an AWS access key.",
    AWS_SECRET_KEY: "Secret of an AWS access key.",
    CREDIT_CARD: "Number of a payment card.",
    DATE: "Date, or date with a time.",
    DATE_OF_BIRTH: "A date that the words around it, or the name of its column, mark as a date of birth.",
    EMAIL_ADDRESS: "E-mail address.",
    IBAN_CODE: "International bank account number.",
    IP_ADDRESS: "Address of the internet protocol, version 4 or 6, with or without a prefix length.",
    MAC_ADDRESS: "Address of a network card.",
    PERSON_NAME: "Name of a person.",
    PHONE_NUMBER: "Phone number.",
    UK_DRIVING_LICENCE: "Number of a driving licence of Great Britain.",
    URL: "URL, or name of a host.",
    US_DRIVER_LICENSE: "Number of a driver license of a state of the United States.",
    US_ITIN: "Individual taxpayer identification number of the United States.",
    US_PASSPORT: "Number of a passport of the United States.",
    US_SSN: "Social security number of the United States.",
}

impl EntityType {
    /// Creates an entity type for a detector of your own.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
