//! Detectors of identity documents and tax numbers of one country.

pub(crate) mod uk_licence;
pub(crate) mod us_itin;
pub(crate) mod us_license;
pub(crate) mod us_passport;
pub(crate) mod us_ssn;
