use super::*;

fn decided(change: impl FnOnce(&mut RunResult), failures: Vec<Failure>) -> RunResult {
    let mut result = RunResult::new(&Totals::default(), &Labels::default(), About::default(), String::new(), None);
    result.counts = Counts { planned: 10, sent: 10, finished: 10, settled: 10, ..Counts::default() };
    change(&mut result);
    result.decide(false, failures);
    result
}

#[test]
fn what_tried_or_judged_nothing_is_no_pass() {
    assert_eq!(decided(|_| {}, Vec::new()).verdict, Verdict::Pass);
    assert_eq!(decided(|result| result.counts = Counts::default(), Vec::new()).verdict, Verdict::Invalid);
    assert_eq!(decided(|result| result.counts.sent = 0, Vec::new()).verdict, Verdict::Invalid);
    let audited = |judged, lost| {
        let audit = audit::Verdict { requests: 10, unknown: 10 - judged, judged, lost, ..Default::default() };
        decided(|result| result.audit = Some(audit), Vec::new()).verdict
    };
    assert_eq!((audited(10, 0), audited(0, 0), audited(10, 1)), (Verdict::Pass, Verdict::Invalid, Verdict::Audit));
}

#[test]
fn a_run_without_an_answer_is_no_pass() {
    let of = |outcomes: &[&str], failed: bool| {
        let counted = |outcome: &&str| OutcomeCount { tier: "-".into(), outcome: (*outcome).into(), count: 1 };
        let outcomes = outcomes.iter().map(counted).collect();
        let judged = Judged { threshold: "error_rate<1%".into(), value: 1.0, pass: !failed };
        decided(|result| (result.outcomes, result.thresholds) = (outcomes, vec![judged]), Vec::new()).verdict
    };
    assert_eq!(of(&["connection-broken", "timeout"], false), Verdict::Invalid);
    // Somebody has thought of it.
    assert_eq!(of(&["connection-broken", "timeout"], true), Verdict::Threshold);
    assert_eq!(of(&["200", "too-many-open-files"], false), Verdict::Invalid, "the generator's own limit");
    assert_eq!((of(&["timeout", "500"], false), of(&["hung-up"], false)), (Verdict::Pass, Verdict::Pass));
}

#[test]
fn a_failure_makes_a_run_invalid_and_a_mistake_of_the_caller_is_told_as_one() {
    let of = |is_usage| decided(|_| {}, vec![Failure { what: "t.ndjson:3:1: …".into(), is_usage }]);
    assert_eq!((of(false).verdict, of(false).exit()), (Verdict::Invalid, Exit::Invalid));
    assert_eq!((of(true).verdict, of(true).exit()), (Verdict::Invalid, Exit::Usage));
}

/// The first form told a run that had lost a row and was late as well as INVALID, exit 12, as if nothing had been found.
#[test]
fn what_the_audit_found_is_hidden_by_nothing() {
    let audit = |lost| audit::Verdict { requests: 10, judged: 10, lost, ..Default::default() };
    let late = |lost, interrupted, is_usage| {
        let mut result = decided(|_| {}, Vec::new());
        (result.audit, result.lag.p99) = (Some(audit(lost)), MOST_LAG_MS + 1.0);
        let failure = Failure { what: "t.ndjson:3:1: …".into(), is_usage };
        result.decide(interrupted, vec![failure]);
        result
    };
    for (interrupted, is_usage) in [(false, false), (true, false), (false, true)] {
        let found = late(1, interrupted, is_usage);
        assert_eq!((found.verdict, found.exit()), (Verdict::Audit, Exit::Audit), "{interrupted} {is_usage}");
        assert!(found.is_invalid() && found.reasons[0].starts_with("audit: lost 1"), "{:?}", found.reasons);
        assert!(found.reasons.iter().any(|reason| reason.contains("was late")), "{:?}", found.reasons);
    }
    assert_eq!(late(0, false, false).exit(), Exit::Invalid);
    assert_eq!(late(0, true, false).exit(), Exit::Interrupted);
    assert_eq!(late(0, false, true).exit(), Exit::Usage);
}
