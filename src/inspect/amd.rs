//! What the heaviest loop of a kernel is made of, read from the machine code that Mesa's compiler
//! for AMD writes: instructions by kind, and how many multiply-adds hide each load.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// The heaviest loop of a kernel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Loop {
    /// Instructions of one round, without waits and hints to the scheduler.
    pub instructions: usize,
    /// Multiply-adds of one round; an instruction that does two counts as two, one that multiplies
    /// matrices as one.
    pub multiply_adds: usize,
    /// Instructions by kind.
    pub mix: BTreeMap<String, usize>,
    /// Of each load from global memory: the multiply-adds that the same subgroup issues between it
    /// and the wait for it. 0 says that nothing of its own work hides the load.
    pub hidden: Vec<usize>,
}

impl Loop {
    /// Multiply-adds among the loop's instructions, 0 to 1.
    pub fn share(&self) -> f64 {
        self.multiply_adds as f64 / self.instructions.max(1) as f64
    }

    /// Whether some load is waited for at once in a loop that multiplies.
    pub fn waits_at_once(&self) -> bool {
        self.multiply_adds > 0 && self.hidden.contains(&0)
    }
}

/// The kind of an instruction by its name (AMD's RDNA3 and Vega instruction set references).
fn kind(name: &str) -> &'static str {
    let begins = |list: &[&str]| list.iter().any(|prefix| name.starts_with(prefix));
    let multiply_add = ["v_fma", "v_pk_fma", "v_mac", "v_mad_f", "v_dot"];
    if name.starts_with("v_dual_") {
        return "dual";
    }
    match name {
        _ if begins(&multiply_add) => "multiply-add",
        _ if begins(&["v_wmma", "v_swmmac", "v_mfma"]) => "matrix",
        _ if begins(&["ds_load", "ds_read"]) => "workgroup load",
        _ if begins(&["ds_store", "ds_write"]) => "workgroup store",
        _ if begins(&["scratch"]) => "scratch",
        _ if begins(&["buffer_load", "global_load", "flat_load"]) => "load",
        _ if begins(&["buffer_", "global_", "flat_"]) => "store",
        _ if begins(&["v_exp", "v_log", "v_rcp", "v_rsq", "v_sqrt", "v_sin", "v_cos"]) => "transcendental",
        _ if begins(&["v_mul_lo", "v_mul_hi", "v_mad_u", "v_mad_i"]) => "integer multiply",
        _ if begins(&["v_mov", "v_swap", "v_accvgpr"]) => "move",
        _ if begins(&["v_cndmask"]) => "select",
        _ if begins(&["v_cmp"]) => "compare",
        _ if begins(&["s_load", "s_buffer_load"]) => "scalar load",
        _ if begins(&["s_wait"]) => "wait",
        _ if begins(&["s_barrier"]) => "barrier",
        _ if begins(&["s_delay", "s_clause", "s_nop", "s_inst_pref"]) => "hint",
        _ if begins(&["s_branch", "s_cbranch"]) => "branch",
        _ if begins(&["v_"]) => "vector",
        _ if begins(&["s_"]) => "scalar",
        _ => "other",
    }
}

/// The two halves of a dual instruction are two of their kind: `v_dual_fmac_f32 .. :: v_dual_..`.
fn multiply_adds(line: &str) -> usize {
    let halves = line.split("::").map(|half| half.trim().split(' ').next().unwrap_or_default());
    halves.filter(|name| ["multiply-add", "matrix"].contains(&kind(&name.replace("v_dual_", "v_")))).count()
}

fn name(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// The block that a label or a branch names: `BB12:`, `s_cbranch_scc1 BB12`.
fn block(text: &str) -> Option<usize> {
    text.trim().trim_end_matches(':').strip_prefix("BB")?.parse().ok()
}

/// The heaviest loop of a kernel's machine code; `None` where it has none.
pub fn heaviest_loop(assembly: &str) -> Option<Loop> {
    let (mut lines, mut starts): (Vec<&str>, BTreeMap<usize, usize>) = (Vec::new(), BTreeMap::new());
    for line in assembly.lines() {
        let line = line.split(';').next().unwrap_or_default().trim_end();
        match block(line) {
            Some(number) if !line.starts_with(['\t', ' ']) => {
                starts.insert(number, lines.len());
            }
            _ if line.starts_with('\t') && !starts.is_empty() => lines.push(line.trim()),
            _ => {}
        }
    }
    let is_back = |(at, line): (usize, &&str)| {
        let target = line.split_whitespace().nth(1).filter(|_| kind(name(line)) == "branch").and_then(block)?;
        starts.get(&target).filter(|start| **start <= at).map(|start| (*start, at + 1))
    };
    let loops = lines.iter().enumerate().filter_map(is_back);
    let loops: Vec<(usize, usize)> = loops.collect();
    let body = |(from, to)| lines.get(from..to).unwrap_or_default();
    let total = |body: &[&str]| body.iter().map(|line| multiply_adds(line)).sum::<usize>();
    // A loop around one that has all its multiply-adds is not the one that runs most.
    let around = |outer: (usize, usize)| {
        let inner = |at: &&(usize, usize)| outer.0 < at.0 && at.1 <= outer.1;
        let most = loops.iter().filter(inner).map(|at| total(body(*at))).max();
        most.is_some_and(|most| most > 0 && most == total(body(outer)))
    };
    let bodies = loops.iter().filter(|at| !around(**at)).map(|at| body(*at));
    let weight = |body: &[&str]| {
        let count = |what: &str| body.iter().filter(|line| kind(name(line)) == what).count();
        1000 * total(body) + 10 * count("load") + body.len()
    };
    bodies.max_by_key(|body| weight(body)).map(describe)
}

fn describe(body: &[&str]) -> Loop {
    let mut mix = BTreeMap::new();
    for line in body {
        *mix.entry(kind(name(line)).to_string()).or_insert(0) += 1;
    }
    let instructions = mix.iter().filter(|(kind, _)| !["hint", "wait"].contains(&kind.as_str())).map(|(_, n)| n).sum();
    Loop { instructions, multiply_adds: body.iter().map(|line| multiply_adds(line)).sum(), mix, hidden: hidden(body) }
}

/// How many loads may be under way after this wait; `None` for other instructions.
fn waits_for_loads(line: &str) -> Option<usize> {
    let number = |text: &str| text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| usize::from_str_radix(hex, 16).ok());
    match name(line) {
        "s_waitcnt" => line.split_once("vmcnt(").and_then(|(_, rest)| number(rest.split(')').next()?)),
        "s_wait_loadcnt" => number(line.split_whitespace().nth(1)?),
        // The upper byte counts loads, the lower those of workgroup memory.
        "s_wait_loadcnt_dscnt" => number(line.split_whitespace().nth(1)?).map(|both| both >> 8),
        _ => None,
    }
}

/// Loads retire in order, so a wait for n leaves the n youngest. The loop is walked twice: what the
/// second round reports is what every round does.
fn hidden(body: &[&str]) -> Vec<usize> {
    let (mut under_way, mut done, mut list) = (VecDeque::new(), 0, Vec::new());
    for lap in 0..2 {
        for line in body {
            if kind(name(line)) == "load" {
                under_way.push_back(done);
            }
            done += multiply_adds(line);
            let Some(keep) = waits_for_loads(line) else { continue };
            while under_way.len() > keep {
                let issued = under_way.pop_front().unwrap_or(done);
                if lap == 1 {
                    list.push(done - issued);
                }
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HIDDEN: &str = "BB0:\n\ts_mov_b32 s0, 0 ; 00\nBB1:\n\tbuffer_load_b128 v[0:3], v4, s[0:3], 0 offen\n\tv_fma_f32 v5, v6, v7, v5\n\
        \tv_dual_fmac_f32 v8, v9, v10 :: v_dual_fmac_f32 v11, v12, v13\n\tv_dual_mov_b32 v1, v2 :: v_dual_fmac_f32 v3, v4, v5\n\
        \ts_waitcnt vmcnt(0)\n\tds_store_b128 v14, v[0:3]\n\ts_barrier\n\ts_cbranch_scc1 BB1\nBB2:\n\ts_endpgm\n";

    #[test]
    fn a_loop_is_described() {
        let found = heaviest_loop(HIDDEN).unwrap();
        assert_eq!((found.multiply_adds, found.hidden.as_slice()), (4, [4].as_slice()));
        assert_eq!(found.instructions, 7);
        assert_eq!(found.mix["dual"], 2);
        assert!(!found.waits_at_once());
        assert_eq!(heaviest_loop("BB0:\n\ts_endpgm\n"), None);
    }

    /// What begins and ends a loop around the heaviest one is not part of its rounds.
    #[test]
    fn the_inner_of_two_loops_is_described() {
        let ahead = HIDDEN.replace("BB1:", "BB1:\n\tv_mov_b32 v1, 0\nBB5:").replace("s_cbranch_scc1 BB1", "s_cbranch_scc1 BB5");
        let nested = ahead.replace("BB2:", "BB2:\n\tv_add_f32 v1, v2, v3\n\ts_cbranch_scc0 BB1\nBB3:");
        assert_eq!(heaviest_loop(&nested), heaviest_loop(HIDDEN));
        let busy = nested.replace("v_add_f32", "v_fma_f32");
        assert_eq!(heaviest_loop(&busy).unwrap().multiply_adds, 5);
    }

    /// An instruction that multiplies matrices is one of a loop's multiply-adds, and hides loads.
    #[test]
    fn matrices_are_multiply_adds() {
        let found = heaviest_loop(&HIDDEN.replace("v_fma_f32 v5, v6, v7, v5", "v_wmma_f32_16x16x16_f16 v[8:15], v[0:7], v[0:7], v[8:15]"));
        let found = found.unwrap();
        assert_eq!((found.mix["matrix"], found.multiply_adds, found.hidden.as_slice()), (1, 4, [4].as_slice()));
    }

    #[test]
    fn a_wait_before_the_work_hides_nothing() {
        let planted = HIDDEN.replace("\tv_fma_f32", "\ts_waitcnt vmcnt(0)\n\tv_fma_f32");
        let found = heaviest_loop(&planted).unwrap();
        assert_eq!(found.hidden, [0]);
        assert!(found.waits_at_once());
        // One load more may be under way, so the oldest of two is waited for.
        let two = HIDDEN.replace("vmcnt(0)", "vmcnt(1)");
        assert_eq!(heaviest_loop(&two).unwrap().hidden, [8]);
        let gfx12 = HIDDEN.replace("s_waitcnt vmcnt(0)", "s_wait_loadcnt 0x0");
        assert_eq!(heaviest_loop(&gfx12).unwrap().hidden, [4]);
        let both = HIDDEN.replace("s_waitcnt vmcnt(0)", "s_wait_loadcnt_dscnt 0x100");
        assert_eq!(heaviest_loop(&both).unwrap().hidden, [8]);
    }
}
