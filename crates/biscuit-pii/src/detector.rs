use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::Result;

use crate::find::{
    Aws, CreditCard, Dates, Email, Iban, Ip, Mac, Names, Phone, UkDrivingLicence, Url, UsDriverLicense, UsItin,
    UsPassport, UsSsn,
};
use crate::hit::Hit;

/// Texts of a column.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// The name of the column, which says something about all its texts; empty where it says nothing.
    pub name: &'a str,
    /// The texts.
    pub texts: &'a [&'a str],
}

/// Finds personal data in texts.
///
/// Ranges of hits begin and end between characters of their text. Hits may overlap. The same texts give the same hits, unless the detector's
/// documentation says otherwise.
#[async_trait]
pub trait Detector: fmt::Debug + Send + Sync {
    /// The hits of each text, in the order of the texts.
    async fn detect(&self, column: &Column<'_>) -> Result<Vec<Vec<Hit>>>;
}

const _: fn(&dyn Detector) = |_| {};

/// All detectors of this crate, for phone numbers of the United States and those with a country code, and with the usual names.
pub fn usual_detectors() -> Vec<Arc<dyn Detector>> {
    vec![
        Arc::new(CreditCard),
        Arc::new(Iban),
        Arc::new(UsSsn),
        Arc::new(UsItin),
        Arc::new(Email),
        Arc::new(Phone::usual()),
        Arc::new(Ip),
        Arc::new(Mac),
        Arc::new(Url),
        Arc::new(Dates),
        Arc::new(UsPassport),
        Arc::new(UsDriverLicense),
        Arc::new(UkDrivingLicence),
        Arc::new(Aws),
        Arc::new(Names::usual()),
    ]
}
