//! Fetches Mesa's compilers from Debian's packages and unpacks them into a folder. Nothing of the
//! system is changed, and no rights are needed beyond those of the folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::targets::{Installation, LIBRARIES};
use crate::error::{Error, Result};
use crate::io::atomic::make_folder;

/// What is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// AMD, from the release's backports: about 11 MB.
    Amd,
    /// AMD, NVIDIA, Adreno and Apple M1 from Debian's unstable release, with a C library of its own:
    /// about 75 MB.
    All,
}

/// Downloads and unpacks what `scope` names; `tell` is told each step.
///
/// # Errors
/// A machine without Debian's apt-get and dpkg-deb, a suite that has no such packages, no network; the failing
/// command's own words.
pub fn set_up(installation: &Installation, scope: Scope, tell: &dyn Fn(String)) -> Result<()> {
    let (root, suite) = match scope {
        Scope::Amd => (installation.amd(), format!("{}-backports", release()?)),
        Scope::All => (installation.all(), "sid".to_string()),
    };
    let mirror = mirror()?;
    tell(format!("Mesa's compilers from {mirror}, suite {suite}, are unpacked into {}", root.display()));
    let work = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
    let packages = work.path().join("packages");
    for folder in [&packages, &work.path().join("lists/partial"), &work.path().join("archives/partial")] {
        make_folder(folder)?;
    }
    let sources = work.path().join("sources.list");
    fs::write(&sources, format!("deb {mirror} {suite} main\n")).map_err(|e| Error::io(&sources, &e))?;
    let status = work.path().join("status");
    fs::write(&status, "").map_err(|e| Error::io(&status, &e))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (option, value) in [
            ("Dir::Etc::SourceList", sources.as_path()),
            ("Dir::Etc::SourceParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &work.path().join("lists")),
            ("Dir::State::status", &status),
            ("Dir::Cache", work.path()),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        // Unstable's lists may be older than they say; their signatures are checked all the same.
        command.args(["-o", "Acquire::Check-Valid-Until=false", "-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User="]);
        run(command.args(arguments).current_dir(&packages))
    };
    apt(&["update", "-qq"])?;
    match scope {
        Scope::Amd => apt(&["download", "-qq", "mesa-drm-shim", "mesa-vulkan-drivers", "libdrm2", "libdrm-amdgpu1"])?,
        // For a system that has nothing, all that these need is fetched, the C library included.
        Scope::All => {
            let wanted = ["libvulkan1", "mesa-drm-shim", "mesa-vulkan-drivers", "vulkan-validationlayers"];
            apt(&[&["install", "-qq", "-y", "--download-only", "--no-install-recommends"], &wanted[..]].concat())?
        }
    };
    // Only a whole installation takes the old one's place.
    let unpacked = root.with_extension("partial");
    remove(&unpacked)?;
    make_folder(&unpacked)?;
    let from = if scope == Scope::Amd { packages } else { work.path().join("archives") };
    let list = fs::read_dir(&from).map_err(|e| Error::io(&from, &e))?;
    let files: Vec<_> = list.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "deb")).collect();
    tell(format!("{} packages", files.len()));
    for file in &files {
        run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unpacked))?;
    }
    let libraries = unpacked.join(LIBRARIES);
    if !libraries.is_dir() {
        return Err(Error::argument("inspect --setup", format!("the packages hold no {LIBRARIES}; only x86-64 is known")));
    }
    remove(&root)?;
    fs::rename(&unpacked, &root).map_err(|e| Error::io(&root, &e))?;
    let names: Vec<&str> = installation.targets().iter().map(|target| target.name).collect();
    tell(format!("there are now {}", names.join(", ")));
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(|e| Error::io(folder, &e)) } else { Ok(()) }
}

/// What a command prints; its own words where it fails.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |message: String| Error::argument("inspect --setup", format!("{name}: {message}"));
    let output = command.output().map_err(|e| failed(format!("{e}; the setup needs Debian's apt-get, dpkg-deb and archive keys")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The Debian mirror that this machine is set to.
fn mirror() -> Result<String> {
    let sites = run(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let found = sites.lines().find(|line| line.ends_with("/debian") || line.ends_with("/debian/"));
    Ok(found.unwrap_or("http://deb.debian.org/debian").trim_end_matches('/').to_string())
}

/// The code name of this release, `bookworm` where it is not Debian's.
fn release() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|v| v.trim_matches('"').to_string());
    let debian = value("ID=").is_some_and(|id| id == "debian");
    Ok(value("VERSION_CODENAME=").filter(|_| debian).unwrap_or_else(|| "bookworm".into()))
}
