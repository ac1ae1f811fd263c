//! Results as files: they appear under their name as a whole, in place of what was there.

use crate::BulkError;
use crate::job::{Format, Job};
use crate::place::Place;
use crate::store::{Folder, Stores};
use crate::table::{TableWriter, ending};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;

/// A file that is being written.
pub(super) struct Save {
    folder: Folder,
    name: String,
    format: Format,
    writer: Option<TableWriter>,
    schema: Option<SchemaRef>,
    pub(super) rows: u64,
}

/// The one file of an output folder, without its ending.
const PART: &str = "part-000000";

impl Save {
    /// To `uri`: a file whose ending says its format, or a folder, which gets one file. Whatever else lies in such a
    /// folder is a reason to refuse.
    pub(super) fn new(uri: &str, format: Option<Format>, stores: &Stores) -> Result<Save, BulkError> {
        let mut job = Job::default();
        uri.clone_into(&mut job.output.uri);
        job.output.format = format;
        let place = Place::of(&job, stores)?;
        let (folder, name) = match place.single {
            Some(single) => single,
            None if uri.ends_with('/') || place.parts.path().is_some_and(std::path::Path::is_dir) => {
                let name = format!("{PART}.{}", ending(place.format));
                if let Some(other) = place.parts.names()?.into_iter().find(|other| *other != name) {
                    let what = format!(
                        "{} is there already: give an empty folder, or a file",
                        place.parts.uri(&other)
                    );
                    return Err(BulkError::Sql { what });
                }
                (place.parts, name)
            }
            None => {
                let what = format!(
                    "{uri}: which format? end it in .parquet .jsonl .csv .tsv .arrow, or a folder in /"
                );
                return Err(BulkError::Sql { what });
            }
        };
        Ok(Save::to(folder, name, place.format))
    }

    /// To a file of a folder.
    pub(super) fn to(folder: Folder, name: String, format: Format) -> Save {
        Save { folder, name, format, writer: None, schema: None, rows: 0 }
    }

    pub(super) fn begin(&mut self, schema: &SchemaRef) -> Result<(), BulkError> {
        self.writer = Some(TableWriter::new(self.folder.draft()?, self.format, schema)?);
        self.schema = Some(schema.clone());
        Ok(())
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), BulkError> {
        if let (Some(writer), Some(schema)) = (&mut self.writer, &self.schema) {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
            writer.write(&batch)?;
            self.rows += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// Gives the file its name; the address of it.
    pub(super) fn finish(self) -> Result<String, BulkError> {
        if let Some(writer) = self.writer {
            self.folder.publish_over(writer.finish()?, &self.name)?;
        }
        Ok(self.folder.uri(&self.name))
    }
}
