//! Which laws each planted defect may break.

use store::simulation::Defect;

/// The laws, as [`crate::invariants::Violation`] names them.
pub fn laws_broken_by(defect: Defect) -> &'static [&'static str] {
    match defect {
        Defect::SkipsFsync => &["no acknowledged row lost or doubled", "a node opens what it wrote"],
        Defect::ForgetsDedup => &["no acknowledged row lost or doubled"],
        Defect::GrantsOneTooMany | Defect::StartsLeaderFull | Defect::RefundsTwice | Defect::ForgetsLent => {
            &["no over-admission: rate"]
        }
        Defect::OverReserves | Defect::MovesWithoutCounters => &["no over-admission: quota"],
        Defect::AllowsOneMoreAtOnce => &["no over-admission: concurrency"],
        Defect::AnswersBeforeBarrier => &["a write that returned is in force everywhere"],
        Defect::ReadsWithoutIndex => &["linearizable reads"],
        // openraft, and a node that opens its directory, notice some of it.
        Defect::ForgetsVote => &["election safety", "a node opens what it wrote", "no panic"],
        Defect::GrantsEveryVote => &["election safety"],
        Defect::ChangesEntries => &["log matching"],
        Defect::AppliesUnevenly => &["equal states at equal index"],
        Defect::MiscountsUsage => &["usage equals the sum of the rows"],
    }
}
