//! Corruption cases of bulk operations. The base has two: one that is over, and one on the way with a
//! run that its page is done with (`runs`).

use crate::corruption_cases::Case;

pub const BULKS: &[Case] = &[
    Case("UPDATE bulk SET id = 'x' WHERE reason = 'over'", &["value bulk.id x"]),
    Case("UPDATE bulk SET namespace = '..'", &["value bulk.namespace *"]),
    Case("UPDATE bulk SET action = 'pause'", &["value bulk.action *"]),
    Case("UPDATE bulk SET filter = '{}'", &["value bulk.filter *"]),
    Case("UPDATE bulk SET filter = '{\"colour\":1}'", &["value bulk.filter *"]),
    Case("UPDATE bulk SET status = 'DONE'", &["value bulk.status *"]),
    Case("UPDATE bulk SET ended_at = NULL WHERE reason = 'over'", &["value bulk.ended_at -"]),
    Case("UPDATE bulk SET failed = 1 WHERE reason = 'over'", &["value bulk.status -"]),
    Case("UPDATE bulk SET skipped = -1", &["value bulk.skipped *"]),
    Case("UPDATE bulk SET expected = -1", &["value bulk.expected *"]),
    Case("UPDATE bulk SET is_exact = 2", &["value bulk.is_exact *"]),
    Case("UPDATE bulk SET page_after = 'x'", &["value bulk.page_after *"]),
    Case("UPDATE bulk SET page = 0, page_after = '1.1'", &["value bulk.page_after *"]),
    Case("UPDATE bulk_run SET outcome = 'odd'", &["value bulk_run.outcome -"]),
    Case("DELETE FROM bulk WHERE status = 'RUNNING'", &["orphan bulk_run.bulk -"]),
    Case(
        "UPDATE bulk SET status = 'CANCELLED', ended_at = 1 WHERE status = 'RUNNING'",
        &["value bulk_run.bulk -"],
    ),
];
