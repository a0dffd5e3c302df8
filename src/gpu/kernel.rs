//! Kernels: their text, and the pipelines built of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use naga::valid::ModuleInfo;

use super::bounds::{check_module, on_large_stack, read};
use super::capabilities::Capabilities;
use super::clock::Instant;
use super::health::guarded;
use super::plan::PlannedKernel;
use super::poison;
use super::reflection::{Reflection, reflect};
use super::template::{Defines, Target, Templates};
use super::tuning::fnv;
use super::walks::{self, Counting};
use crate::error::{Error, Result};

/// A kernel's name and WGSL text (a template, see [`Target`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    name: Cow<'static, str>,
    text: Cow<'static, str>,
    /// Of the text: it tells kernels of one name apart without a walk over their texts.
    hash: u64,
    trusted: bool,
    /// One of the crate's own.
    own: bool,
}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// A kernel embedded from `shaders/`, by its path below that folder, without the extension.
macro_rules! kernel {
    ($path:literal) => {
        $crate::gpu::Kernel::embedded($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path, ".wgsl")))
    };
}
pub(crate) use kernel;

impl Kernel {
    /// A kernel from outside the crate. It is built with bounds checks.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let (name, text) = (name.into(), text.into());
        Self { hash: fnv(text.as_bytes()), name: Cow::Owned(name), text: Cow::Owned(text), trusted: false, own: false }
    }

    /// A kernel of this crate: its indices are guarded by hand, and tests run it with bounds
    /// checks, too.
    pub(crate) const fn embedded(name: &'static str, text: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), text: Cow::Borrowed(text), hash: fnv(text.as_bytes()), trusted: true, own: true }
    }

    /// A kernel from outside, built without bounds checks.
    ///
    /// # Safety
    /// No invocation may read or write outside its bindings, for any parameters that it is launched
    /// with.
    #[allow(unsafe_code)]
    pub const unsafe fn trusted(name: &'static str, text: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), text: Cow::Borrowed(text), hash: fnv(text.as_bytes()), trusted: true, own: false }
    }

    /// Whether it is one of the crate's own.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// Does what reads the text: text from outside may be deep.
    fn reading<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if self.trusted { work() } else { on_large_stack(&self.name, work) }
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name, for the crate's own kernels the path below `shaders/`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A kernel variant ready to launch.
pub(crate) struct Pipeline {
    /// The kernel and its entry point, `family/file:entry`.
    pub label: Arc<str>,
    /// The constants of the variant.
    pub variant: Arc<str>,
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub reflection: Arc<Reflection>,
    /// Invocations of a workgroup.
    pub invocations: usize,
    /// It has a loop.
    pub loops: bool,
    /// The bind group by which it reports its rounds, where they are counted.
    pub rounds_group: Option<u32>,
}

/// One shader that a [`Gpu`](super::Gpu) has built, for tests and for `wgrad ops --emit`.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltShader {
    /// The kernel's name.
    pub kernel: String,
    /// Constants of the variant.
    pub variant: String,
    /// The text that naga reads.
    pub native: String,
    /// The text that a browser reads.
    pub browser: String,
}

struct Module {
    raw: wgpu::ShaderModule,
    layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    reflection: Arc<Reflection>,
    rounds_group: Option<u32>,
}

#[derive(Default)]
struct Built {
    modules: HashMap<Variant, Arc<Module>>,
    pipelines: HashMap<(Variant, String), Arc<Pipeline>>,
    planned: HashMap<Variant, Arc<PlannedKernel>>,
    shaders: Vec<BuiltShader>,
    seconds: f64,
}

/// All pipelines of one device.
pub(crate) struct Kernels {
    templates: Templates,
    target: Target,
    checked: bool,
    /// Own kernels report an index that lies outside of its binding.
    guarded: bool,
    adapter: Capabilities,
    counting: Counting,
    pub uniform_layout: wgpu::BindGroupLayout,
    pub rounds_layout: wgpu::BindGroupLayout,
    built: Mutex<Built>,
}

/// A kernel with its constants, written so that no two sets of constants look alike.
type Variant = (Kernel, String);

fn variant(kernel: &Kernel, defines: &Defines) -> Variant {
    (kernel.clone(), format!("{defines:?}"))
}

/// The constants of a variant, to be read.
fn constants(defines: &Defines) -> String {
    defines.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}

impl Kernels {
    pub(crate) fn new(device: &wgpu::Device, target: Target, checked: bool, adapter: Capabilities, counting: Counting) -> Result<Self> {
        let layout = |label, ty, has_dynamic_offset| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(label),
                entries: &[wgpu::BindGroupLayoutEntry {
                    binding: 0,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
                    count: None,
                }],
            })
        };
        let uniform_layout = layout("parameters", wgpu::BufferBindingType::Uniform, true);
        let rounds_layout = layout("rounds of loops", wgpu::BufferBindingType::Storage { read_only: false }, false);
        let (templates, built) = (Templates::new()?, Mutex::default());
        let guarded = checked && counting == Counting::All;
        Ok(Self { templates, target, checked, guarded, adapter, counting, uniform_layout, rounds_layout, built })
    }

    /// The pipeline of one entry point of one variant, built on first use.
    pub(crate) fn pipeline(&self, device: &wgpu::Device, kernel: &Kernel, defines: &Defines, entry: &str) -> Result<Arc<Pipeline>> {
        let key = (variant(kernel, defines), entry.to_string());
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = built.pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let begun = Instant::now();
        let (modules, variant) = (&mut *built, constants(defines));
        let pipeline = Arc::new(kernel.reading(|| {
            let module = self.built_module(modules, device, kernel, defines)?;
            Self::build(device, kernel, &module, entry, &variant)
        })?);
        built.seconds += begun.elapsed().as_secs_f64();
        built.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// What the text of one variant declares.
    pub(crate) fn reflection(&self, device: &wgpu::Device, kernel: &Kernel, defines: &Defines) -> Result<Arc<Reflection>> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let built = &mut *built;
        kernel.reading(|| Ok(self.built_module(built, device, kernel, defines)?.reflection.clone()))
    }

    /// What a launch would build, without a device.
    pub(super) fn planned(&self, device: &wgpu::Device, kernel: &Kernel, defines: &Defines) -> Result<Arc<PlannedKernel>> {
        let key = variant(kernel, defines);
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(planned) = built.planned.get(&key) {
            return Ok(planned.clone());
        }
        let planned = kernel.reading(|| {
            let text = self.render(kernel, defines, self.target)?;
            let (ir, _) = self.parse(device, kernel, defines, &text)?;
            let entries = reflect(kernel.name(), &ir)?.entries;
            Ok(PlannedKernel {
                kernel: kernel.name.to_string(),
                variant: constants(defines),
                text,
                entries,
                checked: self.is_checked(kernel),
            })
        })?;
        let planned = Arc::new(planned);
        built.planned.insert(key, planned.clone());
        Ok(planned)
    }

    fn render(&self, kernel: &Kernel, defines: &Defines, target: Target) -> Result<String> {
        match kernel.trusted {
            true => self.templates.render(&kernel.name, &kernel.text, defines, target),
            false => self.templates.render_outside(&kernel.name, &kernel.text, defines, target),
        }
    }

    /// Whether it is built with bounds checks.
    fn is_checked(&self, kernel: &Kernel) -> bool {
        self.checked || !kernel.trusted
    }

    fn built_module(&self, built: &mut Built, device: &wgpu::Device, kernel: &Kernel, defines: &Defines) -> Result<Arc<Module>> {
        let key = variant(kernel, defines);
        if let Some(module) = built.modules.get(&key) {
            return Ok(module.clone());
        }
        let native = self.render(kernel, defines, self.target)?;
        let module = Arc::new(self.module(device, kernel, defines, &native)?);
        let other = if self.target == Target::Native { Target::Browser } else { Target::Native };
        let twin = self.render(kernel, defines, other)?;
        let (native, browser) = if self.target == Target::Native { (native, twin) } else { (twin, native) };
        built.shaders.push(BuiltShader { kernel: kernel.name.to_string(), variant: constants(defines), native, browser });
        built.modules.insert(key, module.clone());
        Ok(module)
    }

    pub(crate) fn shaders(&self) -> Vec<BuiltShader> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).shaders.clone()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).seconds
    }

    /// What naga reads from the text; errors name the line of the kernel's own file.
    fn parse(&self, device: &wgpu::Device, kernel: &Kernel, defines: &Defines, text: &str) -> Result<(naga::Module, Option<ModuleInfo>)> {
        let read = |text: &str| read(text, (!kernel.trusted).then(|| device.features()));
        read(text).map_err(|fault| {
            let located = Templates::located(&kernel.name, &kernel.text, defines, self.target, |text| read(text).err());
            Error::shader(kernel.name(), located.unwrap_or_else(|| fault.message().to_string()))
        })
    }

    fn module(&self, device: &wgpu::Device, kernel: &Kernel, defines: &Defines, text: &str) -> Result<Module> {
        let notes = self.guarded && kernel.own;
        let guarded_text = match notes {
            true => Some(self.templates.render_guarded(&kernel.name, &kernel.text, defines, self.target)?),
            false => None,
        };
        let text = guarded_text.as_deref().unwrap_or(text);
        let (mut ir, info) = self.parse(device, kernel, defines, text)?;
        info.map_or(Ok(()), |info| check_module(kernel.name(), &ir, &info, &self.adapter))?;
        let reflection = Arc::new(reflect(kernel.name(), &ir)?);
        // Text from outside may rely on WGSL's zeros.
        let poisoned = (self.counting == Counting::All && kernel.trusted).then(|| poison::with_fill(text, &ir)).flatten();
        if let Some(text) = poisoned {
            ir = self.parse(device, kernel, defines, &text)?.0;
            poison::call_fill(&mut ir);
        }
        let uniform = self.target == Target::Browser && reflection.has_params;
        let counts = self.counting == Counting::All || (self.counting == Counting::Outside && !kernel.own);
        let bindable = reflection.bindings.len() < device.limits().max_storage_buffers_per_shader_stage as usize;
        let rounds_group = (counts && bindable && (notes || !reflection.looping.is_empty())).then_some(if uniform { 2 } else { 1 });
        if let Some(group) = rounds_group {
            walks::instrument(&mut ir, group);
        }
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.name()), source: wgpu::ShaderSource::Naga(Cow::Owned(ir)) };
        let made = guarded(device, || {
            let raw = if !self.is_checked(kernel) {
                // SAFETY: `Kernel::trusted` is the promise that no index leaves its binding.
                #[allow(unsafe_code)]
                unsafe {
                    device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
                }
            } else {
                device.create_shader_module(descriptor)
            };
            let entries: Vec<wgpu::BindGroupLayoutEntry> = reflection
                .bindings
                .iter()
                .enumerate()
                .map(|(index, info)| wgpu::BindGroupLayoutEntry {
                    binding: index as u32,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: !info.writable },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            let layout =
                device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name()), entries: &entries });
            let immediates = if uniform || !reflection.has_params { 0 } else { 4 * (reflection.params.len() as u32 + 1) };
            let mut groups = vec![Some(&layout)];
            groups.extend(uniform.then_some(Some(&self.uniform_layout)));
            groups.extend(rounds_group.map(|_| Some(&self.rounds_layout)));
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel.name()),
                bind_group_layouts: &groups,
                immediate_size: immediates,
            });
            (raw, layout, pipeline_layout)
        });
        let (raw, layout, pipeline_layout) = made.map_err(|error| Error::shader(kernel.name(), error.to_string()))?;
        Ok(Module { raw, layout, pipeline_layout, reflection, rounds_group })
    }

    fn build(device: &wgpu::Device, kernel: &Kernel, module: &Module, entry: &str, variant: &str) -> Result<Pipeline> {
        if !module.reflection.entries.iter().any(|(name, _)| name == entry) {
            let names: Vec<&str> = module.reflection.entries.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::shader(kernel.name(), format!("no entry point \"{entry}\"; it has: {}", names.join(", "))));
        }
        let label = format!("{}:{entry}", kernel.name);
        let descriptor = wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&module.pipeline_layout),
            module: &module.raw,
            entry_point: Some(entry),
            // Kernels write workgroup memory before they read it; naga's zeroing costs a barrier.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: !kernel.trusted,
                ..Default::default()
            },
            cache: None,
        };
        let made = guarded(device, || device.create_compute_pipeline(&descriptor));
        let raw = made.map_err(|error| Error::shader(&label, error.to_string()))?;
        let (layout, reflection) = (module.layout.clone(), module.reflection.clone());
        let loops = reflection.looping.iter().any(|name| name == entry);
        let invocations = reflection.invocations(entry);
        let rounds_group = module.rounds_group;
        Ok(Pipeline { label: label.into(), variant: variant.into(), raw, layout, reflection, invocations, loops, rounds_group })
    }
}
