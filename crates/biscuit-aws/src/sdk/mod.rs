//! Settings of the AWS SDK: options of the user, credentials, the region of a bucket.

pub(crate) mod bucket_settings;
pub(crate) mod credentials;
pub(crate) mod options;
pub(crate) mod region;
pub(crate) mod settings;
