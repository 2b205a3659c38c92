#![doc = include_str!("../README.md")]

mod action;
mod classify;
mod detector;
mod entity;
mod find;
mod hash_key;
mod hit;
mod overlap;
mod redact;
mod remove;
mod texts;

pub use crate::action::Action;
pub use crate::classify::{ColumnClass, classify};
pub use crate::detector::{Column, Detector, usual_detectors};
pub use crate::entity::Entity;
pub use crate::find::{
    Aws, CreditCard, Dates, Email, Iban, Ip, Mac, Names, Phone, UkDrivingLicence, Url, UsDriverLicense, UsItin,
    UsPassport, UsSsn,
};
pub use crate::hash_key::HashKey;
pub use crate::hit::{Hit, Likelihood};
pub use crate::overlap::without_overlaps;
pub use crate::redact::{Redacted, Redactor};
pub use crate::remove::remove;
