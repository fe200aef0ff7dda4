//! `fuzz TARGET [--seconds N] [--seed N]` tries inputs by chance; `fuzz TARGET
//! --input FILE` tries one again. The targets are in `src/fuzz/`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let usage =
        || format!("fuzz {} [--seconds N] [--seed N] [--input FILE]", fuzz::TARGETS.join("|"));
    let target = words.next().with_context(usage)?;
    let (mut seconds, mut seed) = (60, None);
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--seed" => seed = Some(value.parse()?),
            "--input" => {
                println!("{:?}", fuzz::again(&target, Path::new(&value))?);
                return Ok(());
            }
            _ => bail!(usage()),
        }
    }
    #[expect(clippy::disallowed_methods, reason = "the seed is printed, and can be given")]
    let seed = seed.unwrap_or_else(rand::random);
    println!("{target} --seed {seed}");
    let tried = fuzz::run(&target, seed, Duration::from_secs(seconds))?;
    println!("{} inputs in {seconds} s, {} of them taken", tried.all, tried.taken);
    Ok(())
}
