//! What judging costs: one condition beside the bare library, and a round over a large fleet.
//!
//! Both sides of the first comparison are prepared before the clock runs: the expression is read,
//! the context stands. The bare side resolves its two variables from a context that holds them. The
//! round has what a monitor has: windows of checks, snapshots made from them, built-in rules and
//! some of the user's own, ten thousand services that are well. Its allocations are counted, and
//! with twice the rules there must be no more of them.

use std::alloc::System;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use mcpmon_alert::{AlertManager, ConditionRule, RuleSet, ServiceView};
use mcpmon_core::rule::{RuleContext, RuleInput, Scope, Spread, Usual};
use mcpmon_core::service::ServiceLimits;
use mcpmon_core::settings::{RuleSettings, Settings};
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{Rule, ServiceMetrics, ServiceName, ServiceState, Status, Timestamp, Window};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONDITION: &str = r#"error_rate > 0.1 && status != "running""#;
const EVALUATIONS: u64 = 1_000_000;
const SERVICES: usize = 10_000;
const RULES: usize = 12;
const NOW: Timestamp = Timestamp::from_millis(1_795_356_571_120);

fn rule(name: &str, when: &str) -> RuleSettings {
    RuleSettings { name: name.to_owned(), when: Some(when.to_owned()), ..RuleSettings::default() }
}

fn condition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("condition");
    group.throughput(Throughput::Elements(EVALUATIONS)).sample_size(10);
    let ours = ConditionRule::new(&rule("bench", CONDITION)).expect("the condition is right");
    let metrics = ServiceMetrics {
        error_rate: 0.2,
        status: Status::Degraded,
        ..ServiceMetrics::unknown("files".into())
    };
    let context = RuleContext::new(RuleInput::Service(&metrics), NOW);
    group.bench_function("mcpmon", |bencher| {
        bencher.iter(|| {
            for _ in 0..EVALUATIONS {
                let verdict = ours.evaluate(black_box(&context));
                black_box(verdict.is_ok());
            }
        });
    });
    let program = cel::Program::compile(CONDITION).expect("the condition is right");
    let shared = cel::Context::default();
    let mut prepared = shared.new_inner_scope();
    prepared.add_variable("error_rate", 0.2).expect("a number is a value");
    prepared.add_variable("status", "degraded").expect("a text is a value");
    group.bench_function("bare cel", |bencher| {
        bencher.iter(|| {
            for _ in 0..EVALUATIONS {
                let verdict = program.execute(black_box(&prepared));
                black_box(verdict.is_ok());
            }
        });
    });
    group.finish();
}

struct Fleet {
    services: Vec<(ServiceName, Window, ServiceState)>,
    limits: ServiceLimits,
    usual: Usual,
}

impl Fleet {
    fn new() -> Self {
        let services = (0..SERVICES).map(|number| {
            let mut window = Window::new(DEFAULT_WINDOW);
            let mut state = ServiceState::new(NOW.saturating_sub(Duration::from_secs(7_200)));
            (state.status, state.health) = (Status::Running, Status::Running);
            state.available_since = Some(state.since);
            for check in 0..10_u64 {
                let at = NOW.saturating_sub(Duration::from_secs(300 - check * 30));
                let latency = Duration::from_micros(20_000 + check * 100 + number as u64 % 50);
                window.record(
                    at,
                    mcpmon_core::CheckMeaning::health(Status::Running),
                    Some(latency),
                );
            }
            (ServiceName::from(format!("service-{number}")), window, state)
        });
        let spread = |median, deviation| Spread { median, deviation, count: 20, noise: deviation };
        let usual =
            Usual { response_time: Some(spread(0.02, 0.001)), error_rate: Some(spread(0.0, 0.0)) };
        Self { services: services.collect(), limits: ServiceLimits::default(), usual }
    }

    /// Judges every service once, as the engine does.
    fn judge(&self, manager: &mut AlertManager) {
        for (name, window, state) in &self.services {
            let view = ServiceView {
                limits: Some(&self.limits),
                since: Some(state.since),
                usual: Some(&self.usual),
                ..ServiceView::default()
            };
            let metrics = |span| window.metrics(name, state, span, NOW);
            let evaluated = manager.evaluate_service(name, view, metrics, NOW);
            assert!(evaluated.transition.is_none(), "all is well");
            black_box(evaluated.next_due);
        }
    }
}

/// So many rules of services: the built-in ones, and the user's own to fill up.
fn manager(rules: usize) -> AlertManager {
    let mut manager = AlertManager::new();
    let built_in = RuleSet::from_settings(&Settings::default()).expect("built-in rules are right");
    let of_services =
        built_in.into_iter().filter(|rule: &Arc<dyn Rule>| rule.scope() == Scope::Service);
    for rule in of_services.take(rules) {
        manager.add_shared_rule(rule);
    }
    for number in manager.rules().count()..rules {
        let own = rule(&format!("own-{number}"), CONDITION);
        manager.add_rule(ConditionRule::new(&own).expect("the condition is right"));
    }
    manager
}

fn round(criterion: &mut Criterion, fleet: &Fleet) {
    let mut group = criterion.benchmark_group("round");
    group.throughput(Throughput::Elements((SERVICES * RULES) as u64)).sample_size(20);
    group.bench_function("10,000 services, 12 rules", |bencher| {
        let mut manager = manager(RULES);
        bencher.iter_batched(|| (), |()| fleet.judge(&mut manager), BatchSize::PerIteration);
    });
    group.bench_function("10,000 services, no rule", |bencher| {
        let mut manager = manager(0);
        bencher.iter_batched(|| (), |()| fleet.judge(&mut manager), BatchSize::PerIteration);
    });
    group.finish();
}

/// Allocations of one round with so many rules.
fn allocations(fleet: &Fleet, rules: usize) -> usize {
    let mut manager = manager(rules);
    fleet.judge(&mut manager);
    let region = Region::new(ALLOCATOR);
    fleet.judge(&mut manager);
    region.change().allocations
}

#[expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]
fn main() -> ExitCode {
    let fleet = Fleet::new();
    let (few, many) = (allocations(&fleet, RULES), allocations(&fleet, 2 * RULES));
    println!(
        "allocations of a round: {few} with {RULES} rules ({:.1} a service), {many} with {}",
        few as f64 / SERVICES as f64,
        2 * RULES
    );
    if many > few {
        println!("a rule that says nothing must not allocate");
        return ExitCode::FAILURE;
    }
    let mut criterion = Criterion::default().configure_from_args();
    condition(&mut criterion);
    round(&mut criterion, &fleet);
    criterion.final_summary();
    ExitCode::SUCCESS
}
