//! Pictures of a column: bytes, or addresses of files that are fetched when their turn comes.

use super::super::kind::Bound;
use crate::BulkError;
use crate::function::RowError;
use crate::store::{Stores, is_remote};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use kun_engine::tasks::pixels::{DecodeLimits, Image, decode};

/// A longer file is no picture.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Reads pictures.
pub(super) struct Pictures {
    stores: Stores,
    column: String,
}

/// Whether a JPEG has no end-of-image marker near its end: decoders fill what is missing with grey.
fn is_cut_off(bytes: &[u8]) -> bool {
    const END: [u8; 2] = [0xFF, 0xD9];
    // Cameras write a little behind the marker; a preview inside the header has one of its own, further up.
    let tail = &bytes[bytes.len().saturating_sub(64 << 10).max(bytes.len() / 2)..];
    bytes.starts_with(&[0xFF, 0xD8, 0xFF]) && !tail.windows(2).any(|pair| pair == END)
}

/// Where a row's picture is.
enum Source<'a> {
    Bytes(&'a [u8]),
    Address(&'a str),
}

impl Pictures {
    pub(super) fn new(bound: &Bound) -> Pictures {
        Pictures { stores: bound.context.stores.clone(), column: bound.columns[0].clone() }
    }

    /// Sees that a column may hold pictures.
    pub(super) fn check(&self, column: &ArrayRef) -> Result<(), BulkError> {
        match column.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(()),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Ok(()),
            DataType::Struct(_) => match column.as_struct().column_by_name("bytes") {
                Some(bytes) => self.check(bytes),
                None => Err(self.no_pictures(column)),
            },
            _ => Err(self.no_pictures(column)),
        }
    }

    /// The picture of a row.
    pub(super) fn read(&self, column: &ArrayRef, row: usize) -> Result<Image, RowError> {
        self.decoded(&source(column, row)?)
    }

    fn no_pictures(&self, column: &ArrayRef) -> BulkError {
        BulkError::job(format!(
            "column `{}` is {}: neither addresses nor bytes of pictures",
            self.column,
            column.data_type()
        ))
    }

    fn decoded(&self, source: &Source<'_>) -> Result<Image, RowError> {
        let fetched;
        let bytes = match source {
            Source::Bytes(bytes) => *bytes,
            Source::Address(uri) => {
                if uri.is_empty() {
                    return Err(RowError::fatal("the address is empty"));
                }
                // A host that does not answer now may later; a file that is not there will not be.
                let failed = |error: &dyn std::error::Error, may_pass: bool| match may_pass && is_remote(uri)
                {
                    true => RowError::retryable(crate::input::chain(error)),
                    false => RowError::fatal(crate::input::chain(error)),
                };
                let may_pass = |error: &BulkError| !matches!(error, BulkError::NotBuilt { .. });
                let info = self.stores.info(uri).map_err(|error| failed(&error, may_pass(&error)))?;
                let object = self.stores.open(&info).map_err(|error| failed(&error, may_pass(&error)))?;
                fetched = object.read_all(MAX_FILE_BYTES).map_err(|error| failed(&error, true))?;
                &fetched
            }
        };
        if is_cut_off(bytes) {
            return Err(RowError::fatal("the picture is cut off: a JPEG without its end"));
        }
        decode(bytes, DecodeLimits::default())
            .map(|decoded| decoded.image)
            .map_err(|error| RowError::fatal(error.to_string()))
    }
}

fn source(column: &ArrayRef, row: usize) -> Result<Source<'_>, RowError> {
    if column.is_null(row) {
        return Err(RowError::fatal("the value is NULL"));
    }
    let none = || RowError::fatal("neither an address nor the bytes of a picture");
    Ok(match column.data_type() {
        DataType::Utf8 => Source::Address(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Source::Address(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Source::Address(column.as_string_view().value(row)),
        DataType::Binary => Source::Bytes(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Source::Bytes(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => Source::Bytes(column.as_binary_view().value(row)),
        // As data sets of the Hugging Face Hub have pictures: `{bytes, path}`.
        DataType::Struct(_) => match column.as_struct().column_by_name("bytes") {
            Some(bytes) => return source(bytes, row),
            None => return Err(none()),
        },
        _ => return Err(none()),
    })
}
