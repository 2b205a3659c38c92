//! Reading files of AWS DMS.

pub(crate) mod file_name;
pub(crate) mod options;
pub(crate) mod reader;
pub(crate) mod rows;
