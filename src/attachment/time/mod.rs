//! The times in attachments: their creation time and the date of an end-of-life mark.

mod created;
mod end_of_life;
mod rfc3339;

pub use created::Created;
pub use end_of_life::{EndOfLifeDate, EndOfLifeDateError};
