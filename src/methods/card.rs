//! What is known of a method apart from its code: `wgrad methods` and `wgrad compare` show it.

/// A method's card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodCard {
    /// Its name on the command line and in recipes.
    pub name: &'static str,
    /// What the literature calls it.
    pub title: &'static str,
    /// What it does, in one line.
    pub text: &'static str,
    /// What it learns from: labels, images alone, a teacher.
    pub supervision: Supervision,
    /// The idea that it shares with its family: contrastive, generative.
    pub family: &'static str,
    /// When it was published first.
    pub year: u16,
    /// By whom.
    pub authors: &'static str,
    /// The paper's title, and where it is.
    pub paper: &'static str,
    /// Names of methods here that are close to it.
    pub related: &'static [&'static str],
}

/// What a method learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// A label for every image.
    Supervised,
    /// Images alone.
    SelfSupervised,
    /// A few labels, and images without.
    SemiSupervised,
    /// Labels that say less than the truth, or not always the truth.
    WeaklySupervised,
    /// What other networks know.
    Distillation,
    /// Labels for several tasks.
    Multitask,
}

impl std::fmt::Display for Supervision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Supervision::Supervised => "supervised",
            Supervision::SelfSupervised => "self-supervised",
            Supervision::SemiSupervised => "semi-supervised",
            Supervision::WeaklySupervised => "weakly supervised",
            Supervision::Distillation => "distillation",
            Supervision::Multitask => "multitask",
        })
    }
}
