use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::Result;

use crate::find::{
    AwsKeyDetector, CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, MacDetector,
    NameDetector, PhoneDetector, UkDrivingLicenceDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector,
    UsPassportDetector, UsSsnDetector,
};
use crate::hit::PiiHit;

/// Texts of a column.
#[derive(Debug, Clone, Copy)]
pub struct ColumnTexts<'a> {
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
    async fn detect(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>>;
}

const _: fn(&dyn Detector) = |_| {};

/// All detectors of this crate, for phone numbers of the United States and those with a country code, and with the usual names.
pub fn default_detectors() -> Vec<Arc<dyn Detector>> {
    vec![
        Arc::new(CreditCardDetector),
        Arc::new(IbanDetector),
        Arc::new(UsSsnDetector),
        Arc::new(UsItinDetector),
        Arc::new(EmailDetector),
        Arc::new(PhoneDetector::defaults()),
        Arc::new(IpDetector),
        Arc::new(MacDetector),
        Arc::new(UrlDetector),
        Arc::new(DateDetector),
        Arc::new(UsPassportDetector),
        Arc::new(UsDriverLicenseDetector),
        Arc::new(UkDrivingLicenceDetector),
        Arc::new(AwsKeyDetector),
        Arc::new(NameDetector::defaults()),
    ]
}
