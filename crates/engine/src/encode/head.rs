//! The file of a linear head: safetensors with `weight` f32 `[L, D]`, `bias` f32 `[L]`, and as bytes `labels` (apart by
//! zero bytes) and `model`, the name of the embedder that it was trained on.

use crate::EngineError;
use kun_formats::{FormatError, safetensors};
use kun_tasks::text::head::LinearHead;
use std::path::Path;

/// A larger file is no head.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A linear head and the model whose embeddings it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFile {
    /// The weights.
    pub head: LinearHead,
    /// The model's name.
    pub model: String,
}

impl HeadFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`EngineError::Format`] for what is no safetensors file, [`EngineError::Unsuitable`] for one that holds no head.
    pub fn open(path: &Path) -> Result<HeadFile, EngineError> {
        use std::io::Read;
        let failed = |source| EngineError::Format(FormatError::Io { path: path.to_owned(), source });
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        HeadFile::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<HeadFile, EngineError> {
        let tensors = safetensors::parse(bytes).map_err(EngineError::Format)?;
        let wrong = |what: String| EngineError::Unsuitable { what: format!("no linear head: {what}") };
        let data = |name: &str| {
            let info = tensors.get(name).ok_or_else(|| wrong(format!("no tensor `{name}`")))?;
            let range = usize::try_from(info.offset).ok().zip(usize::try_from(info.len).ok());
            let part = range.and_then(|(start, len)| bytes.get(start..start.checked_add(len)?));
            Ok::<_, EngineError>((info, part.ok_or_else(|| wrong(format!("`{name}` is cut off")))?))
        };
        let floats = |name: &str| -> Result<(&[usize], Vec<f32>), EngineError> {
            let (info, part) = data(name)?;
            if info.dtype != kun_tensor::DType::F32 {
                return Err(wrong(format!("`{name}` is {}", info.dtype.name())));
            }
            let values = part.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Ok((&info.shape, values.collect()))
        };
        let text = |name: &str| {
            let (_, part) = data(name)?;
            String::from_utf8(part.to_vec()).map_err(|_| wrong(format!("`{name}` is no text")))
        };
        let ((shape, weights), (_, bias)) = (floats("weight")?, floats("bias")?);
        let labels: Vec<String> = text("labels")?.split('\0').map(str::to_owned).collect();
        let fits = matches!(shape, [rows, width] if *rows == labels.len() && *width > 0)
            && bias.len() == labels.len()
            && labels.len() > 1;
        if !fits {
            return Err(wrong(format!("weights {shape:?}, bias {}, labels {}", bias.len(), labels.len())));
        }
        Ok(HeadFile { head: LinearHead { labels, weights, bias }, model: text("model")? })
    }

    /// Writes the file beside `path` and puts it in its place once it is whole.
    ///
    /// # Errors
    /// [`EngineError::Format`] if the disk refuses.
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let written = std::fs::write(&part, self.bytes()).and_then(|()| std::fs::rename(&part, path));
        written.map_err(|source| {
            let _ = std::fs::remove_file(&part);
            EngineError::Format(FormatError::Io { path: path.to_owned(), source })
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let LinearHead { labels, weights, bias } = &self.head;
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let parts = [
            ("weight", "F32", format!("[{},{}]", labels.len(), self.head.width()), floats(weights)),
            ("bias", "F32", format!("[{}]", labels.len()), floats(bias)),
            ("labels", "U8", format!("[{}]", labels.join("\0").len()), labels.join("\0").into_bytes()),
            ("model", "U8", format!("[{}]", self.model.len()), self.model.clone().into_bytes()),
        ];
        let mut at = 0;
        let entries: Vec<String> = parts
            .iter()
            .map(|(name, dtype, shape, data)| {
                let end = at + data.len();
                let entry =
                    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{at},{end}]}}"#);
                at = end;
                entry
            })
            .collect();
        let mut header = format!("{{{}}}", entries.join(","));
        // Floats begin at a multiple of eight.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.into_bytes());
        parts.into_iter().for_each(|(.., data)| bytes.extend(data));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> HeadFile {
        let labels = vec!["no".to_owned(), "yes \"indeed\"\n".to_owned(), "ja".to_owned()];
        let head = LinearHead {
            labels,
            weights: (0..12).map(|n| n as f32 / 7.0).collect(),
            bias: vec![0.5, -1.0, 0.0],
        };
        HeadFile { head, model: "all-minilm-l6-v2".to_owned() }
    }

    #[test]
    fn a_head_is_read_back_as_written() {
        assert_eq!(HeadFile::parse(&file().bytes()).unwrap(), file());
    }

    #[test]
    fn any_other_file_is_refused() {
        let bytes = file().bytes();
        for cut in 0..bytes.len() {
            assert!(HeadFile::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len().min(400) {
            let mut crafted = bytes.clone();
            crafted[at] ^= 1;
            let _ = HeadFile::parse(&crafted);
        }
        let text = String::from_utf8_lossy(&bytes).replace("weight", "widget");
        assert!(HeadFile::parse(text.as_bytes()).is_err());
    }
}
