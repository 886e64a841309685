//! The status of an operation, and its next step.

use std::fmt;

use crate::proto;

/// The status of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// A status of a newer service, which this client treats as not terminal.
    Unknown,
    /// Waits for a worker.
    Pending,
    /// In the hands of a worker.
    Processing,
    /// Ended with success; may have a result.
    Completed,
    /// Ended with a failure; has at least one error.
    Failed,
    /// Ended by its owner or an admin.
    Cancelled,
}

impl Status {
    /// Return true if an operation of this status has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Return the name, such as `PENDING`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Pending => "PENDING",
            Self::Processing => "PROCESSING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Return the status of the name; `Unknown` for one of a newer service.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "PENDING" => Self::Pending,
            "PROCESSING" => Self::Processing,
            "COMPLETED" => Self::Completed,
            "FAILED" => Self::Failed,
            "CANCELLED" => Self::Cancelled,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn from_number(number: i32) -> Self {
        proto::OperationStatus::try_from(number).map_or(Self::Unknown, |status| {
            Self::named(status.as_str_name().trim_start_matches("OPERATION_STATUS_"))
        })
    }

    pub(crate) fn number(self) -> i32 {
        let name = format!("OPERATION_STATUS_{}", self.name());
        proto::OperationStatus::from_str_name(&name).unwrap_or_default().into()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The event that an active operation requires next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextStep {
    /// A claim by a worker.
    Claim,
    /// The renewal of the lease.
    Renewal,
    /// The end of the work.
    End,
}

impl NextStep {
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        match proto::NextStep::try_from(number).ok()? {
            proto::NextStep::Claim => Some(Self::Claim),
            proto::NextStep::Renewal => Some(Self::Renewal),
            proto::NextStep::End => Some(Self::End),
            proto::NextStep::Unspecified => None,
        }
    }
}
