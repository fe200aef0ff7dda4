//! Counts the words of a text, in three nodes for one graph: `split` cuts the text into
//! chunks, `count` counts the words of one chunk, `merge` unites the counts.
//!
//! # The definition of a word
//!
//! A word is a maximal run of ASCII letters, in lower case: `Don't` is `don` and `t`,
//! and `naïve` is `na` and `ve`. That is crude, but standard Unix tools can check it;
//! these give the same ten most frequent words:
//!
//! ```sh
//! LC_ALL=C tr 'A-Z' 'a-z' < FILE | LC_ALL=C tr -cs 'a-z' '\n' | sed '/^$/d' \
//!   | LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2,2 | head -n 10
//! ```
//!
//! Words of the same count are in alphabetical order.

mod count;
mod merge;
mod split;

use count::count;
use merge::merge;
use split::split;

exosphere_sdk::export! {
    /// Cuts a text into chunks at the edges of words, one output for each. An
    /// empty text has none.
    split,
    /// Counts the words of a chunk. Adds their number to the store's `words`,
    /// and one to its `chunks`.
    count,
    /// Adds up the counts of all chunks and gives the most frequent words. A
    /// null, as a failed branch leaves it, is reported as missing.
    merge,
}
