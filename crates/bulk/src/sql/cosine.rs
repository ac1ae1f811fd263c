//! `cosine(a, b)`: how alike two vectors are.

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, FixedSizeListArray, Float32Array, Float64Array, ListArray};
use arrow_schema::{DataType, Field};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

pub(super) fn udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(Cosine { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Cosine {
    signature: Signature,
}

impl ScalarUDFImpl for Cosine {
    fn name(&self) -> &str {
        "cosine"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let vector = |data_type: &DataType| match data_type {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                item.data_type().is_numeric() || item.data_type().is_null()
            }
            other => other.is_null(),
        };
        match types.iter().find(|data_type| !vector(data_type)) {
            None => Ok(DataType::Float64),
            Some(other) => plan_err!("`cosine` takes two vectors, such as those of embed(text), not {other}"),
        }
    }

    /// NULL where a vector is NULL, of another length or of length 0.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [one, other] = args.args.as_slice() else { return exec_err!("`cosine` takes two vectors") };
        let (one, other) = (Vectors::of(one)?, Vectors::of(other)?);
        let cosine = |row: usize| {
            let (a, b) = (one.row(row)?, other.row(row)?);
            if a.len() != b.len() {
                return None;
            }
            let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
            for (x, y) in a.iter().zip(b) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                (dot, aa, bb) = (dot + x * y, aa + x * x, bb + y * y);
            }
            (aa > 0.0 && bb > 0.0).then(|| dot / (aa.sqrt() * bb.sqrt()))
        };
        let column: Float64Array = (0..args.number_rows).map(cosine).collect();
        Ok(ColumnarValue::Array(Arc::new(column)))
    }
}

/// Vectors of f32, one a row or one for all rows.
struct Vectors {
    lists: Lists,
    values: Float32Array,
    is_one: bool,
}

enum Lists {
    Fixed(FixedSizeListArray),
    Any(ListArray),
}

impl Vectors {
    fn of(value: &ColumnarValue) -> Result<Vectors> {
        let is_one = matches!(value, ColumnarValue::Scalar(_));
        let array = match value {
            ColumnarValue::Scalar(scalar) => scalar.to_array()?,
            ColumnarValue::Array(array) => array.clone(),
        };
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let (lists, values) = match array.data_type() {
            DataType::FixedSizeList(_, width) => {
                let array = arrow_cast::cast(&array, &DataType::FixedSizeList(item, *width))?;
                let lists = array.as_fixed_size_list().clone();
                let values = lists.values().as_primitive::<Float32Type>().clone();
                (Lists::Fixed(lists), values)
            }
            _ => {
                let array = arrow_cast::cast(&array, &DataType::List(item))?;
                let lists = array.as_list::<i32>().clone();
                let values = lists.values().as_primitive::<Float32Type>().clone();
                (Lists::Any(lists), values)
            }
        };
        Ok(Vectors { lists, values, is_one })
    }

    fn row(&self, row: usize) -> Option<&[f32]> {
        let row = if self.is_one { 0 } else { row };
        let (is_null, start, count) = match &self.lists {
            Lists::Fixed(lists) => {
                let width = usize::try_from(lists.value_length()).ok()?;
                (lists.is_null(row), usize::try_from(lists.value_offset(row)).ok()?, width)
            }
            Lists::Any(lists) => {
                let start = usize::try_from(*lists.value_offsets().get(row)?).ok()?;
                (lists.is_null(row), start, usize::try_from(lists.value_length(row)).ok()?)
            }
        };
        let has_null =
            self.values.null_count() > 0 && (start..start + count).any(|at| self.values.is_null(at));
        if is_null || has_null {
            return None;
        }
        self.values.values().get(start..start + count)
    }
}
