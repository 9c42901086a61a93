//! Which formats there are depends on what was compiled in.

use super::{Encoder, Format, csv, ndjson};
use std::io;

/// Why a file can't be begun.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The format needs a part of terse that was left out.
    #[error("parquet export is not compiled in; rebuild with --features parquet")]
    NotCompiledIn,
    /// Its writer failed.
    #[error("the file can't be begun")]
    Io(#[from] io::Error),
}

/// Begins a file.
pub fn open(format: Format) -> Result<Box<dyn Encoder>, OpenError> {
    match format {
        Format::Csv => Ok(Box::new(csv::Csv::new()?)),
        Format::Ndjson => Ok(Box::new(ndjson::Ndjson::default())),
        #[cfg(feature = "parquet")]
        Format::Parquet => Ok(Box::new(super::parquet::Parquet::new()?)),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => Err(OpenError::NotCompiledIn),
    }
}
