//! Columns of CSV as numbers, truth values and dates, where all of the first rows are such.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::CastOptions;
use arrow_schema::{DataType, TimeUnit};

/// In the order in which they are tried.
const TYPES: [DataType; 5] = [
    DataType::Boolean,
    DataType::Int64,
    DataType::Float64,
    DataType::Date32,
    DataType::Timestamp(TimeUnit::Microsecond, None),
];

/// What a column's texts are: the first type that all of them have, else text.
pub(super) fn type_of(texts: &StringArray) -> DataType {
    let present: StringArray = texts.iter().flatten().filter(|text| !text.is_empty()).map(Some).collect();
    if present.is_empty() {
        return DataType::Utf8;
    }
    // What begins with a zero is a number of a thing, such as a postal code, and keeps its zeros.
    let is_code = |text: &str| {
        let digits = text.trim_start_matches(['-', '+']);
        digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit()
    };
    let has_codes = present.iter().flatten().any(is_code);
    let fits = |data_type: &DataType| {
        let words = || present.iter().flatten();
        match data_type {
            // Not 0 and 1, which are numbers.
            DataType::Boolean => {
                words().all(|word| word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false"))
            }
            DataType::Int64 | DataType::Float64 if has_codes => false,
            DataType::Date32 => words().all(|word| word.len() == 10) && all_cast(&present, data_type),
            other => all_cast(&present, other),
        }
    };
    TYPES.into_iter().find(fits).unwrap_or(DataType::Utf8)
}

fn all_cast(texts: &StringArray, data_type: &DataType) -> bool {
    cast(texts, data_type).is_some_and(|array| array.null_count() == 0)
}

fn cast(texts: &dyn Array, data_type: &DataType) -> Option<ArrayRef> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    arrow_cast::cast_with_options(texts, data_type, &options).ok()
}

/// A column of texts as `data_type`, with the rows whose text is none; an empty text is NULL.
pub(super) fn typed(column: &ArrayRef, data_type: &DataType) -> (ArrayRef, Vec<usize>) {
    let (Some(texts), false) = (column.as_string_opt::<i32>(), data_type == &DataType::Utf8) else {
        return (column.clone(), Vec::new());
    };
    let Some(array) = cast(texts, data_type) else { return (column.clone(), Vec::new()) };
    let lost = |row: &usize| array.is_null(*row) && texts.is_valid(*row) && !texts.value(*row).is_empty();
    let wrong = if array.null_count() == 0 { Vec::new() } else { (0..texts.len()).filter(lost).collect() };
    (array, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_what_all_of_their_texts_are() {
        let of = |texts: &[&str]| type_of(&texts.iter().copied().map(Some).collect()).to_string();
        assert_eq!(of(&["1", "", "-20"]), "Int64");
        assert_eq!(of(&["1", "2.5", "1e3"]), "Float64");
        assert_eq!(of(&["01234", "99999"]), "Utf8");
        assert_eq!(of(&["0", "0.5"]), "Float64");
        assert_eq!(of(&["true", "False"]), "Boolean");
        assert_eq!(of(&["2024-01-31"]), "Date32");
        assert!(of(&["2024-01-31 10:00:00"]).starts_with("Timestamp"));
        assert_eq!(of(&["1", "x"]), "Utf8");
        assert_eq!(of(&["", ""]), "Utf8");
    }

    #[test]
    fn a_text_of_another_kind_is_told() {
        let texts: ArrayRef =
            std::sync::Arc::new(StringArray::from(vec![Some("1"), Some("x"), Some(""), None]));
        let (array, wrong) = typed(&texts, &DataType::Int64);
        assert_eq!((array.null_count(), wrong), (3, vec![1]));
    }
}
