//! The detectors of this crate, one for each kind of personal data. Other detectors implement
//! [`Detector`](crate::Detector).
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow::array::{ArrayRef, AsArray, StringArray};
//! use biscuit_pii::Redactor;
//! use biscuit_pii::detectors::{CreditCardDetector, IbanDetector};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
//! let texts: ArrayRef = Arc::new(StringArray::from(vec!["card 4111 1111 1111 1111", "to DE89370400440532013000"]));
//! let redactor = Redactor::new(vec![Arc::new(CreditCardDetector), Arc::new(IbanDetector)]);
//! let redacted = redactor.redact("notes", &texts).await?.column;
//! assert_eq!(redacted.as_string::<i32>().value(0), "card <CREDIT_CARD>");
//! assert_eq!(redacted.as_string::<i32>().value(1), "to <IBAN_CODE>");
//! # Ok(()) }
//! ```

pub use crate::detect::default_detectors::default_detectors;
pub use crate::find::{
    AwsKeyDetector, CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, MacDetector,
    NameDetector, PhoneDetector, UkDrivingLicenceDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector,
    UsPassportDetector, UsSsnDetector,
};
