//! Products of matrices.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::Gemm;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "MatMul" => call.same(TensorOp::MatMul),
        "Gemm" => {
            let gemm = Gemm {
                alpha: call.float_or("alpha", 1.0),
                beta: call.float_or("beta", 1.0),
                transpose_a: call.flag("transA"),
                transpose_b: call.flag("transB"),
            };
            call.same(TensorOp::Gemm(gemm))
        }
        "MatMulInteger" => call.same(TensorOp::MatMulInteger),
        "QLinearMatMul" => call.same(TensorOp::QLinearMatMul),
        "Einsum" => {
            let equation = call.text_or("equation", "")?.to_owned();
            call.same(TensorOp::Einsum(equation))
        }
        _ => Ok(false),
    }
}
