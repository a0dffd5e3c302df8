//! Workgroup memory full of NaN, as buffers are in poison mode: our kernels are built without the
//! zeroing that WGSL promises, so what they read before they write it must show.

use naga::{AddressSpace, ArraySize, Barrier, BuiltIn, Expression, FunctionArgument, Module, ScalarKind, Span, Statement, TypeInner};

use super::POISON;

/// The function that fills.
pub(super) const FILL: &str = "poison_workgroup";

/// `text` with the function behind it, if the text has workgroup memory.
pub(super) fn with_fill(text: &str, module: &Module) -> Option<String> {
    let invocations = module.entry_points.iter().map(|entry| entry.workgroup_size.iter().product::<u32>()).min()?;
    let shared = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    let fills: String = shared.filter_map(|(_, v)| Some(fill(module, v.name.as_deref()?, v.ty, 0, invocations))).collect();
    // A variable, because WGSL refuses a constant that is NaN.
    let head = format!("fn {FILL}(lane: u32) {{ var bits = {POISON}u;");
    (!fills.is_empty()).then(|| format!("{text}\n{head}{fills} }}\n"))
}

/// Statements that fill what lies at `path`; invocations share the outermost array.
fn fill(module: &Module, path: &str, ty: naga::Handle<naga::Type>, depth: usize, invocations: u32) -> String {
    let value = |scalar: naga::Scalar| match (scalar.kind, scalar.width) {
        (ScalarKind::Float, 2) => "f16(bitcast<f32>(bits))",
        (ScalarKind::Float, _) => "bitcast<f32>(bits)",
        (ScalarKind::Sint, _) => "bitcast<i32>(bits)",
        (ScalarKind::Bool, _) => "bits != 0u",
        _ => "bits",
    };
    let inside = |path: &str, ty| fill(module, path, ty, depth + 1, invocations);
    match module.types.get_handle(ty).map(|ty| &ty.inner) {
        Ok(TypeInner::Scalar(scalar)) => format!(" {path} = {};", value(*scalar)),
        Ok(TypeInner::Vector { size, scalar }) => format!(" {path} = vec{}({});", *size as u8, value(*scalar)),
        Ok(TypeInner::Matrix { columns, rows, scalar }) => {
            (0..*columns as u8).map(|column| format!(" {path}[{column}] = vec{}({});", *rows as u8, value(*scalar))).collect()
        }
        Ok(TypeInner::Atomic(scalar)) => format!(" atomicStore(&{path}, {});", value(*scalar)),
        Ok(TypeInner::Struct { members, .. }) => {
            members.iter().filter_map(|m| Some(inside(&format!("{path}.{}", m.name.as_deref()?), m.ty))).collect()
        }
        Ok(TypeInner::Array { base, size: ArraySize::Constant(count), .. }) => {
            let (first, step) = if depth == 0 { ("lane", invocations) } else { ("0u", 1) };
            let body = inside(&format!("{path}[i{depth}]"), *base);
            format!(" for (var i{depth} = {first}; i{depth} < {count}u; i{depth} += {step}u) {{{body} }}")
        }
        _ => String::new(),
    }
}

/// Makes every entry point of a module that [`with_fill`] gave begin with the function.
pub(super) fn call_fill(module: &mut Module) {
    let Some((fill, _)) = module.functions.iter().find(|(_, function)| function.name.as_deref() == Some(FILL)) else { return };
    let unsigned = naga::Type { name: None, inner: TypeInner::Scalar(naga::Scalar::U32) };
    let unsigned = module.types.insert(unsigned, Span::UNDEFINED);
    for function in module.entry_points.iter_mut().map(|entry| &mut entry.function) {
        let binding = Some(naga::Binding::BuiltIn(BuiltIn::LocalInvocationIndex));
        let known = function.arguments.iter().position(|argument| argument.binding == binding);
        let at = known.unwrap_or(function.arguments.len());
        if known.is_none() {
            function.arguments.push(FunctionArgument { name: None, ty: unsigned, binding });
        }
        let lane = function.expressions.append(Expression::FunctionArgument(at as u32), Span::UNDEFINED);
        let call = Statement::Call { function: fill, arguments: vec![lane], result: None };
        let first = naga::Block::from_vec(vec![call, Statement::ControlBarrier(Barrier::WORK_GROUP)]);
        function.body.splice(0..0, first);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gpu, GpuOptions, Kernel, Launch};
    use crate::tensor::{DType, Tensor};

    /// Fills two thirds of its workgroup memory and adds up as much of it, of each kind, as it is
    /// told.
    const TEXT: &str = r#"{{ output(0, "y") }} {{ params("read: u32") }}
        struct Part { a: vec3<f32>, b: mat2x2<f32>, c: array<array<u32, 2>, 2> }
        var<workgroup> parts: array<Part, 9>;
        var<workgroup> counts: array<atomic<u32>, 9>;
        var<workgroup> total: f32;
        @compute @workgroup_size(3) fn run(@builtin(local_invocation_id) id: vec3<u32>) {
            for (var i = id.x; i < 6u; i += 3u) {
                parts[i] = Part(vec3(1.0), mat2x2(1.0, 1.0, 1.0, 1.0), array(array(1u, 1u), array(1u, 1u)));
                atomicStore(&counts[i], 1u);
            }
            workgroupBarrier();
            if (id.x == 0u) {
                var sum = 0.0;
                for (var i = 0u; i < p.read; i++) {
                    let part = parts[i];
                    sum += part.a.z + part.b[1].y + bitcast<f32>(part.c[1][1]) + f32(atomicLoad(&counts[i]));
                }
                if (p.read == 0u) { sum = total; }
                store_y(0u, sum);
            }
        }"#;

    #[test]
    fn a_kernel_that_reads_workgroup_memory_which_it_has_not_written_gives_nan() {
        let kernel = Kernel::embedded("test/unwritten", TEXT);
        for webgpu_limits in [false, true] {
            let gpu = Gpu::with(GpuOptions { poison: true, webgpu_limits, ..GpuOptions::from_env().unwrap() }).unwrap();
            let read = |count: usize| {
                let y = Tensor::zeros(&gpu, [1], DType::F32).unwrap();
                let launch = Launch::new(&gpu, &kernel, "run").write(&y).params(crate::params![count]).walk(20);
                launch.groups(1).unwrap();
                y.to_vec::<f32>().unwrap()[0]
            };
            assert_eq!(read(6), 18.0);
            assert!(read(7).is_nan() && read(0).is_nan(), "{} {}", read(7), read(0));
        }
    }
}
