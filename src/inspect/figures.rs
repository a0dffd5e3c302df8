//! What drivers' compilers call their numbers, and what they have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The numbers of one kernel that any compiler can be asked for, each where it gives it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Vector registers of one lane.
    pub registers: Option<f64>,
    /// Values that did not fit in registers.
    pub spills: f64,
    /// Memory of one lane or subgroup for what did not fit, bytes.
    pub scratch_bytes: f64,
    /// Workgroup memory, bytes.
    pub workgroup_bytes: Option<f64>,
    /// How much may run at a time on one unit, in the compiler's own measure: subgroups a SIMD
    /// (AMD), warps a multiprocessor (NVIDIA), waves a core (Adreno), threads (Apple).
    pub occupancy: Option<f64>,
    /// Instructions.
    pub instructions: Option<f64>,
    /// Cycles from the first to the last instruction, by the compiler's model: no caches, no other
    /// subgroups.
    pub latency: Option<f64>,
    /// Cycles of a unit that one subgroup takes from others, by the same model.
    pub throughput: Option<f64>,
}

const REGISTERS: &[&str] = &["VGPRs", "Number of GPRs", "Max live registers", "Registers used", "GPRs"];
const SPILLS: &[&str] = &["Spilled VGPRs", "Spilled SGPRs", "Spills to memory", "Spill count", "Spills", "STP Count"];
const SCRATCH: &[&str] = &["Scratch size", "Scratch", "SLM size", "Scratch Memory Size"];
const WORKGROUP: &[&str] = &["LDS size", "LDS Size", "Workgroup Memory Size"];
const OCCUPANCY: &[&str] = &["Subgroups per SIMD", "Max warps/SM", "Max Waves Per Core", "Threads"];
const INSTRUCTIONS: &[&str] = &["Instructions", "Instruction count", "Instruction Count"];
const LATENCY: &[&str] = &["Latency", "Static cycle count", "Cycle count", "Cycles"];
const THROUGHPUT: &[&str] = &["Inverse Throughput"];

impl Figures {
    /// From a compiler's own numbers.
    pub fn of(statistics: &BTreeMap<String, f64>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| statistics.get(*name)).copied();
        let sum = |names: &[&str]| names.iter().filter_map(|name| statistics.get(*name)).sum();
        Self {
            registers: first(REGISTERS),
            spills: sum(SPILLS),
            scratch_bytes: first(SCRATCH).unwrap_or(0.0),
            workgroup_bytes: first(WORKGROUP),
            occupancy: first(OCCUPANCY),
            instructions: first(INSTRUCTIONS),
            latency: first(LATENCY),
            throughput: first(THROUGHPUT),
        }
    }

    /// Whether registers did not suffice.
    pub fn spills(&self) -> bool {
        self.spills > 0.0 || self.scratch_bytes > 0.0
    }

    /// Names and values, for tables and comparisons.
    pub fn named(&self) -> [(&'static str, Option<f64>); 8] {
        [
            ("registers", self.registers),
            ("spills", Some(self.spills)),
            ("scratch_bytes", Some(self.scratch_bytes)),
            ("workgroup_bytes", self.workgroup_bytes),
            ("occupancy", self.occupancy),
            ("instructions", self.instructions),
            ("latency", self.latency),
            ("throughput", self.throughput),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_words_become_common_ones() {
        let of = |list: &[(&str, f64)]| Figures::of(&list.iter().map(|(name, value)| (name.to_string(), *value)).collect());
        let amd = of(&[("VGPRs", 72.0), ("Spilled VGPRs", 3.0), ("Spilled SGPRs", 2.0), ("Subgroups per SIMD", 16.0), ("Latency", 9.0)]);
        assert_eq!((amd.registers, amd.spills, amd.occupancy, amd.latency), (Some(72.0), 5.0, Some(16.0), Some(9.0)));
        assert!(amd.spills());
        let nvidia = of(&[("Number of GPRs", 64.0), ("Spills to memory", 0.0), ("Static cycle count", 100.0)]);
        assert_eq!((nvidia.registers, nvidia.latency, nvidia.throughput, nvidia.spills()), (Some(64.0), Some(100.0), None, false));
        assert!(of(&[("Scratch size", 64.0)]).spills());
    }
}
