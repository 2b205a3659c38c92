//! The default detectors: one of each kind in this crate.

use std::sync::Arc;

use crate::detect::detector::Detector;
use crate::find::{
    AwsKeyDetector, CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, MacDetector,
    NameDetector, PhoneDetector, UkDrivingLicenceDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector,
    UsPassportDetector, UsSsnDetector,
};

/// Returns all detectors of this crate. They find phone numbers of the United States and those with a country code,
/// and frequent names of persons of the United States.
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
