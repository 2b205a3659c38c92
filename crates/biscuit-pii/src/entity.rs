use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of personal data, by the name that Presidio and Comprehend have for it where they have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityType(Cow<'static, str>);

macro_rules! entities {
    ($($name:ident: $says:literal,)*) => {
        impl EntityType {
            $(#[doc = $says] pub const $name: Self = Self(Cow::Borrowed(stringify!($name)));)*
        }
    };
}

entities! {
    AWS_ACCESS_KEY: "The id of an AWS access key.",
    AWS_SECRET_KEY: "The secret of an AWS access key.",
    CREDIT_CARD: "The number of a payment card.",
    DATE: "A date, or a date with a time.",
    DATE_OF_BIRTH: "A date of which the words around it say that somebody was born then.",
    EMAIL_ADDRESS: "An e-mail address.",
    IBAN_CODE: "An international bank account number.",
    IP_ADDRESS: "An address of the internet protocol, version 4 or 6, with or without the length of its prefix.",
    MAC_ADDRESS: "The address of a network card.",
    PERSON_NAME: "A name of a person.",
    PHONE_NUMBER: "A phone number.",
    UK_DRIVING_LICENCE: "The number of a driving licence of Great Britain.",
    URL: "A URL, or the name of a host.",
    US_DRIVER_LICENSE: "The number of a driver license of a state of the United States.",
    US_ITIN: "An individual taxpayer identification number of the United States.",
    US_PASSPORT: "The number of a passport of the United States.",
    US_SSN: "A social security number of the United States.",
}

impl EntityType {
    /// An entity of another detector.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
