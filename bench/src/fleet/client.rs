//! A system under load, whatever its protocol.

use std::sync::Arc;

use super::first;
use crate::collector::{Observer, Outcome};
use crate::error::BenchError;
use crate::filling;
use crate::generator::{self, Plan};
use crate::keyspace::Keyspace;
use crate::ledger::{Audit, Findings, Ledger, Ledgered};
use crate::load::LoadFlags;
use crate::op::OpKind;
use crate::target::Target;
use crate::workload::Mix;

/// What can be done with a system that runs.
pub(crate) trait Client {
    /// The keys of a load, as the system spreads them.
    ///
    /// # Errors
    /// [`BenchError`]
    fn lay_out(&self, flags: &LoadFlags) -> Result<Keyspace, BenchError>;

    /// Makes a load.
    ///
    /// # Errors
    /// [`BenchError`]
    fn run(&self, plan: &Plan, observer: &mut dyn Observer) -> Result<Outcome, BenchError>;

    /// Writes every key of a plan once.
    ///
    /// # Errors
    /// [`BenchError`]
    fn fill(&self, plan: &Plan) -> Result<(), BenchError>;

    /// Has the first key read or written by one client, trying until that is done.
    ///
    /// # Errors
    /// [`BenchError`]
    fn first(&self, kind: OpKind, keyspace: &Keyspace) -> Result<(), BenchError>;

    /// Reads every key of a plan once and compares it with what was recorded.
    ///
    /// # Errors
    /// [`BenchError`]
    fn audit(&self, plan: &Plan, ledger: &Arc<Ledger>) -> Result<Findings, BenchError>;
}

impl<T: Target> Client for Arc<T> {
    fn lay_out(&self, flags: &LoadFlags) -> Result<Keyspace, BenchError> {
        filling::lay_out(flags, &**self)
    }

    fn run(&self, plan: &Plan, observer: &mut dyn Observer) -> Result<Outcome, BenchError> {
        generator::run(self, plan, observer)
    }

    fn fill(&self, plan: &Plan) -> Result<(), BenchError> {
        let mix = Mix::sweep(OpKind::Write, 1, self.partitions());
        filling::sweep(self, &Plan { mix, ..plan.clone() }).map(drop)
    }

    fn first(&self, kind: OpKind, keyspace: &Keyspace) -> Result<(), BenchError> {
        first::answer(self, kind, keyspace)
    }

    fn audit(&self, plan: &Plan, ledger: &Arc<Ledger>) -> Result<Findings, BenchError> {
        let audit = Arc::new(Audit::new(Arc::clone(ledger)));
        let mix = Mix::sweep(OpKind::Read, 1, self.partitions());
        let plan = Plan { mix, ledger: Ledgered::Audits(Arc::clone(&audit)), ..plan.clone() };
        filling::sweep(self, &plan).map_err(|error| BenchError::Audit { why: error.to_string() })?;
        Ok(audit.findings())
    }
}
