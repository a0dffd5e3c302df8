//! Tables as comma-separated values.

use crate::error::{Error, Result};

/// The rows as text, a line each, quoted where it must be (as in RFC 4180).
///
/// # Errors
/// [`Error::Argument`] for rows of different lengths.
pub(crate) fn csv<R: IntoIterator<Item: AsRef<[u8]>>>(rows: impl IntoIterator<Item = R>) -> Result<String> {
    let wrong = |message: String| Error::argument("csv", message);
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.into_iter().try_for_each(|row| writer.write_record(row)).map_err(|error| wrong(error.to_string()))?;
    let bytes = writer.into_inner().map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))
}
