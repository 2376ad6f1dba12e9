//! `ais-node status URL`: how a cluster is, in 80 columns.
//!
//! | module | what it does |
//! |---|---|
//! | [`ask`] | the one call: `GET /v1/cluster?what=ha` |
//! | [`judge`] | what of it is not well |
//! | [`render`] | the text |
//!
//! Exit codes: 0 healthy, 1 not healthy, 2 could not ask.

mod ask;
mod judge;
mod render;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use judge::troubles;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Could not ask.
const UNASKED: u8 = 2;
/// Enter and leave the terminal's other screen; to its top left, and clear what is below.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const TOP: &str = "\x1b[H\x1b[J";

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A gateway's public URL, such as http://127.0.0.1:51080
    pub url: String,
    /// Look again every second until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Token, where clients need one
    #[arg(long, env = "AIS_AUTHN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the authorities behind the cluster's certificates, for an https URL
    #[arg(long, env = "AIS_TLS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// One look: what to show, and the exit code for it.
async fn look(options: &Options) -> (String, u8) {
    let seen = match ask::ask(&options.url, options.token.as_deref(), options.ca_file.as_deref()).await {
        Ok(seen) => seen,
        Err(why) => return (format!("{}: {why}\n", options.url), UNASKED),
    };
    let now_ms = crate::clock::unix_ms();
    let troubles = troubles(&seen);
    let code = u8::from(!troubles.is_empty());
    (render::text(&seen, &troubles, now_ms), code)
}

/// Runs the command.
pub async fn run(options: Options) -> ExitCode {
    if !options.watch {
        let (text, code) = look(&options).await;
        // Nobody is left to be told when standard output is gone.
        drop(if code == UNASKED {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        });
        return ExitCode::from(code);
    }
    show(ENTER);
    let code = watch(&options).await;
    show(LEAVE);
    ExitCode::from(code)
}

async fn watch(options: &Options) -> u8 {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = tokio::signal::ctrl_c();
    tokio::pin!(end);
    let mut last = UNASKED;
    loop {
        tokio::select! {
            _ = &mut end => return last,
            (text, code) = async { looks.tick().await; look(options).await } => {
                last = code;
                if !show(&format!("{TOP}{text}")) {
                    return last;
                }
            }
        }
    }
}

/// False when nobody can see it.
fn show(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
