//! What text from outside may ask for. Parsers, naga's writers and drivers walk deep text by
//! recursion, and drivers take any size of memory at its word, so what is deeper or larger is
//! refused before they see it.

use naga::valid::ModuleInfo;

use super::capabilities::Capabilities;
use super::fault::{Fault, parse, tags, validate};
use crate::error::{Error, Result};

/// Most bytes of a kernel's text, and of what a template may become.
pub(crate) const TEXT_BYTES: usize = 1 << 20;
pub(crate) const EXPANDED_BYTES: usize = 4 << 20;
/// Most operators, brackets and `else`s that lie in each other.
const DEPTH: usize = 4000;
const ELSES: usize = 500;
/// Most bytes of variables, or of one value, of an invocation.
const PRIVATE_BYTES: u64 = 64 << 10;
/// Most statements and expressions of an entry point, where each call is a copy of its function, as
/// drivers make it.
const INLINED: u64 = 4_000_000;
const CALLS: u64 = 256;
/// Most arrays and structs in each other.
const TYPES: usize = 64;
/// The stack for what passes.
const STACK: usize = 256 << 20;

fn refuse<T>(kernel: &str, message: String) -> Result<T> {
    Err(Error::shader(kernel, message))
}

/// Refuses too much text.
pub(super) fn check_size(kernel: &str, text: &str) -> Result<()> {
    if text.len() > TEXT_BYTES {
        return refuse(kernel, format!("{} bytes of text; {TEXT_BYTES} are the most", text.len()));
    }
    Ok(())
}

/// Does `work` on a thread whose stack is large enough for the deepest text that [`check_depth`]
/// lets pass. A browser has no threads to make; its own stack is what there is.
pub(super) fn on_large_stack<T: Send>(kernel: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if cfg!(target_arch = "wasm32") {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("shader".into()).stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.or_else(|e| refuse(kernel, format!("no thread of {STACK} bytes of stack to read it on: {e}")))?;
        thread.join().unwrap_or_else(|_| refuse(kernel, "the shader compiler panicked on this text; please report it".into()))
    })
}

/// What a text says, and its faults. Text from `outside` is validated for a device with these
/// features; for trusted text that is left to wgpu.
pub(super) fn read(text: &str, outside: Option<wgpu::Features>) -> Result<(naga::Module, Option<ModuleInfo>), Fault> {
    // naga does not know the line that browsers demand. What stands behind it stays where it is.
    let text = text.replace("enable subgroups;", "                 ");
    let Some(features) = outside else { return Ok((parse(&text)?, None)) };
    check_depth(&text)?;
    let module = parse(&text)?;
    let info = validate(&module, features)?;
    Ok((module, Some(info)))
}

/// What of a statement lies in each other, so far.
struct Depth {
    /// Operators since the last comma, of each open bracket.
    operators: Vec<usize>,
    sum: usize,
    /// `else`s of the chain under way, of each open brace.
    elses: Vec<usize>,
    chain: usize,
}

impl Depth {
    fn operator(&mut self) {
        self.sum += 1;
        if let Some(top) = self.operators.last_mut() {
            *top += 1;
        }
    }

    /// The innermost list goes on with its next element.
    fn next(&mut self) {
        if let Some(top) = self.operators.last_mut() {
            self.sum -= std::mem::take(top);
        }
    }

    fn close(&mut self) {
        if self.operators.len() > 1 {
            self.sum -= self.operators.pop().unwrap_or(0);
        }
    }

    fn statement(&mut self) {
        (self.operators, self.sum) = (vec![0], 0);
    }

    fn end_chain(&mut self) {
        if let Some(top) = self.elses.last_mut() {
            self.chain -= std::mem::take(top);
        }
    }

    fn close_block(&mut self) {
        self.statement();
        if self.elses.len() > 1 {
            self.chain -= self.elses.pop().unwrap_or(0);
        }
    }
}

/// Refuses expressions and chains of `else if` that lie in each other too deeply: an upper bound,
/// by the characters.
pub(super) fn check_depth(text: &str) -> Result<(), Fault> {
    let mut depth = Depth { operators: vec![0], sum: 0, elses: vec![0], chain: 0 };
    let mut rest = text.char_indices().peekable();
    let (mut comments, mut behind_block) = (0usize, false);
    while let Some((at, c)) = rest.next() {
        let next = rest.peek().map_or(' ', |(_, c)| *c);
        match c {
            _ if c.is_whitespace() => continue,
            '/' if next == '*' => {
                comments += 1;
                rest.next();
                continue;
            }
            '*' if next == '/' && comments > 0 => {
                comments -= 1;
                rest.next();
                continue;
            }
            _ if comments > 0 => continue,
            '/' if next == '/' => {
                while rest.next_if(|(_, c)| *c != '\n').is_some() {}
                continue;
            }
            _ => {}
        }
        let mut word = String::new();
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            while let Some((_, c)) = rest.next_if(|(_, n)| n.is_alphanumeric() || *n == '_' || (*n == '.' && c.is_ascii_digit())) {
                word.push(c);
            }
        }
        if std::mem::take(&mut behind_block) && word != "else" && c != '}' {
            depth.end_chain();
        }
        match (c, word.as_str()) {
            (_, "else") => {
                depth.chain += 1;
                if let Some(top) = depth.elses.last_mut() {
                    *top += 1;
                }
            }
            // Operators of templates.
            (_, "and" | "or" | "not" | "is" | "in" | "if") => depth.operator(),
            ('(' | '[', _) => {
                depth.operator();
                depth.operators.push(0);
            }
            (')' | ']', _) => depth.close(),
            (',', _) => depth.next(),
            (';', _) => depth.statement(),
            ('{', _) => {
                depth.statement();
                depth.elses.push(0);
            }
            ('}', _) => {
                depth.close_block();
                behind_block = true;
            }
            ('+' | '-' | '*' | '/' | '%' | '&' | '|' | '^' | '!' | '~' | '<' | '>' | '=' | '.', _) => depth.operator(),
            _ => {}
        }
        if depth.sum > DEPTH {
            let message =
                format!("an expression has more than {DEPTH} operators that depend on each other; use a loop, or several statements");
            return Err(Fault::new(message, at, "this far it is read"));
        }
        if depth.chain > ELSES {
            return Err(Fault::new(format!("more than {ELSES} `else`s in one chain; use a switch"), at, "this far it is read"));
        }
    }
    Ok(())
}

/// The same of the tags of a template.
pub(super) fn check_tags(text: &str) -> Result<(), Fault> {
    let mut branches = 0;
    for tag in tags(text) {
        let inner = text.get(tag.clone()).unwrap_or_default();
        // What is a comment in WGSL is an operator here.
        check_depth(&inner.replace('/', "+")).map_err(|fault| Fault::new(fault.message().to_string(), tag.start, "this tag"))?;
        branches += usize::from(inner.contains("elif"));
        if branches > ELSES {
            return Err(Fault::new(format!("more than {ELSES} `elif`s"), tag.start, "this far it is read"));
        }
    }
    Ok(())
}

/// What a function takes, with all that it calls.
#[derive(Clone, Copy, Default)]
struct Cost {
    private: u64,
    inlined: u64,
    calls: u64,
}

/// Adds what `block` calls.
fn add_block(cost: &mut Cost, block: &naga::Block, callees: &[Cost]) {
    use naga::Statement as S;
    for statement in block.iter() {
        cost.inlined = cost.inlined.saturating_add(1);
        match statement {
            S::Block(inner) => add_block(cost, inner, callees),
            S::If { accept, reject, .. } => [accept, reject].into_iter().for_each(|b| add_block(cost, b, callees)),
            S::Switch { cases, .. } => cases.iter().for_each(|case| add_block(cost, &case.body, callees)),
            S::Loop { body, continuing, .. } => [body, continuing].into_iter().for_each(|b| add_block(cost, b, callees)),
            S::Call { function, .. } => {
                let callee = callees.get(function.index()).copied().unwrap_or_default();
                cost.private = cost.private.saturating_add(callee.private);
                cost.inlined = cost.inlined.saturating_add(callee.inlined);
                cost.calls = cost.calls.max(callee.calls + 1);
            }
            _ => {}
        }
    }
}

/// Compares memory and work that a valid module asks for with what the adapter has.
pub(super) fn check_module(kernel: &str, module: &naga::Module, info: &ModuleInfo, adapter: &Capabilities) -> Result<()> {
    let size = |ty: naga::Handle<naga::Type>| module.types.get_handle(ty).map_or(0, |t| u64::from(t.inner.size(module.to_ctx())));
    let limit = |message: String| Error::Limit { operator: kernel.into(), message, adapter: adapter.name.clone() };
    let cost = |function: &naga::Function, info: &naga::valid::FunctionInfo, callees: &[Cost]| {
        let private = function.local_variables.iter().map(|(_, v)| size(v.ty)).fold(0, u64::saturating_add);
        let mut cost = Cost { private, inlined: function.expressions.len() as u64, calls: 0 };
        add_block(&mut cost, &function.body, callees);
        let value =
            |(handle, _): (naga::Handle<naga::Expression>, _)| u64::from(info[handle].ty.inner_with(&module.types).size(module.to_ctx()));
        (cost, function.expressions.iter().map(value).max().unwrap_or(0))
    };
    let check = |what: &str, (cost, value): (Cost, u64)| {
        if value > PRIVATE_BYTES {
            return Err(limit(format!(
                "{what} has a value of {value} bytes; {PRIVATE_BYTES} are the most: use a pointer, or a storage buffer"
            )));
        }
        if cost.private > PRIVATE_BYTES {
            return Err(limit(format!(
                "variables of {what} take {} bytes an invocation, with those of what it calls; {PRIVATE_BYTES} are the most: use smaller arrays, or a storage buffer",
                cost.private
            )));
        }
        if cost.inlined > INLINED || cost.calls > CALLS {
            return refuse(
                kernel,
                format!(
                    "{what} has {} statements and expressions where each call is a copy of its function, and calls {} deep; {INLINED} and {CALLS} are the most",
                    cost.inlined, cost.calls
                ),
            );
        }
        Ok(cost)
    };
    let mut nesting: Vec<usize> = Vec::new();
    for (_, ty) in module.types.iter() {
        let of = |ty: naga::Handle<naga::Type>| nesting.get(ty.index()).copied().unwrap_or(0);
        let inner = match &ty.inner {
            naga::TypeInner::Array { base, .. } | naga::TypeInner::Pointer { base, .. } => of(*base),
            naga::TypeInner::Struct { members, .. } => members.iter().map(|m| of(m.ty)).max().unwrap_or(0),
            _ => 0,
        };
        if inner >= TYPES {
            return refuse(kernel, format!("types lie in each other more than {TYPES} deep"));
        }
        nesting.push(inner + 1);
    }
    let mut callees = Vec::new();
    for (handle, function) in module.functions.iter() {
        let what = format!("fn {}", function.name.as_deref().unwrap_or_default());
        callees.push(check(&what, cost(function, &info[handle], &callees))?);
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        let used = info.get_entry_point(index);
        let (mut own, value) = cost(&entry.function, used, &callees);
        let mut shared = 0u64;
        for (_, variable) in module.global_variables.iter().filter(|(handle, _)| !used[*handle].is_empty()) {
            match variable.space {
                naga::AddressSpace::WorkGroup => shared = shared.saturating_add(size(variable.ty)),
                naga::AddressSpace::Private => own.private = own.private.saturating_add(size(variable.ty)),
                _ => {}
            }
        }
        check(&format!("fn {}", entry.name), (own, value))?;
        let most = adapter.max_workgroup_bytes;
        if shared > u64::from(most) {
            return Err(limit(format!(
                "fn {} needs {shared} bytes of workgroup memory; {most} are the most: use smaller tiles",
                entry.name
            )));
        }
        let ([x, y, z], most) = (entry.workgroup_size.map(u64::from), u64::from(adapter.max_invocations));
        if x.saturating_mul(y).saturating_mul(z) > most {
            return Err(limit(format!("fn {} has workgroups of {x} x {y} x {z} invocations; {most} are the most", entry.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_side_by_side_is_not_deep() {
        let wide = format!("const a = array({});", vec!["-1.5e-3 * x.y"; 20_000].join(", "));
        let statements = "a = (b[0] + c) * 2.0;\n if (a < b) { a = b; } else { a = c; }\n".repeat(5000);
        let comment = format!("/* {} */ // {}", "- ".repeat(9000), "- ".repeat(9000));
        [wide, statements, comment].iter().for_each(|text| assert!(check_depth(text).is_ok()));
    }

    #[test]
    fn what_lies_in_each_other_is() {
        for (one, count) in
            [("1+", 5000), ("-", 5000), ("(", 5000), ("x[0]", 5000), ("a.", 5000), ("f(1, -", 3000), ("array<", 5000), ("a == ", 5000)]
        {
            assert!(check_depth(&one.repeat(count)).is_err(), "{one}");
        }
        for one in ["} else if (x) {", "} else if x == 1 { let a = 1; ", "} /* */ else /* if */ if x { {} if y {} else {}"] {
            assert!(check_depth(&("if x {".to_string() + &one.repeat(1000))).is_err(), "{one}");
        }
        assert!(check_tags(&format!("{{{{ \"}}}}\" ~ {} }}}}", "1 and ".repeat(5000))).is_err());
        assert!(check_tags(&"{% elif x %}".repeat(1000)).is_err());
        assert!(check_tags("{{ 1 + 2 }} {# + #}").is_ok());
    }
}
